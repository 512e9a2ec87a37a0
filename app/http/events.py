"""Server-sent events for a route that only sometimes answers with them; FastAPI has its own for the others.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from worker.cancellation import cancelled

COMMENT_SECONDS = 15.0
"""A comment comes after so long without an event: proxies cut what is silent."""


def event_bytes(event: str, data: dict[str, Any]) -> bytes:
    return format_sse_event(event=event, data_str=json.dumps(data))


async def with_comments(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events, and comments between them."""
    upcoming = asyncio.create_task(_next(events))
    try:
        while True:
            done, _ = await asyncio.wait([upcoming], timeout=COMMENT_SECONDS)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            event = upcoming.result()
            if event is None:
                return
            yield event
            upcoming = asyncio.create_task(_next(events))
    finally:
        await cancelled(upcoming)
        await events.aclose()


async def _next(events: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(events, None)
