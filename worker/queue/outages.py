"""The times at which Redis ended, and the request ids by which one tells whether a request was lost then."""

import re
import secrets
import time
from typing import Any, NamedTuple

import redis.asyncio

from worker.queue import keys

DRAWN_ID = re.compile(r"[0-9a-f]{32}")

DRAWN_BEFORE_SECONDS = 5.0
"""An id is drawn so long before Redis has it, at most."""


def new_request_id() -> str:
    """32 hexadecimal digits: the time in ms, by which `outage_at` goes, and 80 random bits.

    Nobody guesses another's request.
    """
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


class Outage(NamedTuple):
    """Redis ended, and what it was told between these Unix seconds may be lost."""

    since: float
    until: float


async def outage_at(client: redis.asyncio.Redis, request_id: str) -> Outage | None:
    """When Redis may have lost a request of this id, as far as the last day is concerned.

    Raises what redis-py raises when Redis is away.
    """
    if not DRAWN_ID.fullmatch(request_id):
        return None
    drawn = int(request_id[:12], 16) / 1000
    spans: Any = await client.zrange(keys.OUTAGES, 0, -1)
    for span in spans:
        since, until = (int(milliseconds) / 1000 for milliseconds in span.split())
        if since - DRAWN_BEFORE_SECONDS <= drawn <= until:
            return Outage(since, until)
    return None
