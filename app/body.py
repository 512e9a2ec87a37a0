"""The body of a call, read with a limit."""

from collections.abc import AsyncIterator

from pydantic_core import from_json
from starlette.requests import Request

from app.errors import BodyTooLarge, not_json


async def read_json(request: Request, limit: int) -> object:
    """The parsed body, any JSON value. Raises BadInput, or BodyTooLarge once it is past `limit` bytes."""
    body = await read_bytes(request, limit)
    try:
        # Unlike json.loads it refuses NaN, lone surrogates and deep nesting: nothing behind us takes them.
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise not_json(str(error)) from None


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body as it is. Raises BodyTooLarge once it is past `limit` bytes."""
    body = bytearray()
    async for chunk in chunks(request, limit):
        body += chunk
    return bytes(body)


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
