"""Answers that hold pictures: they count as in flight until the caller has taken them."""

import asyncio
from typing import TypeVar

from anyio import CapacityLimiter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.http.in_flight import share_of

READING = CapacityLimiter(8)
"""Each reads what one answer holds, which is in memory before it counts as in flight."""

PIECE_BYTES = 262_144
SEND_SECONDS = 600
"""The whole of an answer may take so long: who takes longer is cut off, since it is in memory so long."""


class InPieces(Response):
    """Sent as fast as the caller takes it, so that the call, and what it holds, ends when all is out."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with asyncio.timeout(SEND_SECONDS):
                for start in range(0, len(self.body), PIECE_BYTES):
                    piece = bytes(self.body[start : start + PIECE_BYTES])
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body"})
        except TimeoutError:
            raise ClientDisconnect from None


class JsonInPieces(InPieces, JSONResponse):
    """The same for a JSON body."""


Answer = TypeVar("Answer", bound=InPieces)


def counted(answer: Answer, call: Request) -> Answer:
    """The answer, which counts as in flight from now on. Raises Unavailable."""
    take(len(answer.body), call)
    return answer


def take(count: int, call: Request) -> None:
    """Counts so many bytes of an answer as in flight, until the call ends. Raises Unavailable."""
    share_of(call).take(call.scope["state"].get("owner"), count)
