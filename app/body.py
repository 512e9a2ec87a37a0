"""The JSON body of a call, read with a limit."""

from pydantic_core import from_json
from starlette.requests import Request

from app.errors import BodyTooLarge, not_json


async def read_json(request: Request, limit: int) -> object:
    """The parsed body, any JSON value. Raises BadInput, or BodyTooLarge once it is past `limit` bytes."""
    if _declared_length(request) > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(limit)
    try:
        # Unlike json.loads it refuses NaN, lone surrogates and deep nesting: nothing behind us takes them.
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise not_json(str(error)) from None


def _declared_length(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0
