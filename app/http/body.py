"""The body of a call, read with a limit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic_core import from_json
from starlette.requests import Request

from app.errors import BadInput, BodyTooLarge, BodyTooSlow, not_json

BODY_SECONDS = 600
"""For the whole of a body: 75 MB at a megabit a second."""

MAX_VALUES = 25_000
"""Of a JSON body, told by its commas and brackets, those in texts included (a prompt has 20,000 characters).
By the million, two bytes that become a Python object each would stop this server for half a minute."""


async def read_json(request: Request, limit: int) -> object:
    """The parsed body, any JSON value. Raises BadInput, or BodyTooLarge once it is past `limit` bytes."""
    body = await read_bytes(request, limit)
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        sentence = f"body: it holds more than {MAX_VALUES} values."
        raise BadInput(sentence, detail=[{"loc": ["body"], "msg": sentence, "type": "too_long"}])
    try:
        # Unlike json.loads it refuses NaN, lone surrogates and deep nesting: nothing behind us takes them.
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise not_json(str(error)) from None


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body as it is. Raises BodyTooLarge once it is past `limit` bytes, and BodyTooSlow."""
    body = bytearray()
    async with in_time():
        async for chunk in chunks(request, limit):
            body += chunk
    return bytes(body)


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raises BodyTooSlow when reading within takes too long."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError:
        raise BodyTooSlow(BODY_SECONDS) from None


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises BodyTooLarge, before anything is read if its length is declared."""
    if _declared_length(request) > limit:
        raise BodyTooLarge(limit)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise BodyTooLarge(limit)
        yield chunk


def _declared_length(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0
