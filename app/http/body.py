"""The body of a call, read with a limit."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from pydantic_core import from_json
from starlette.requests import Request

from app.errors import BadInput, BodyTooLarge, BodyTooSlow, WrongBody, not_json, quoted
from app.http.in_flight import share_of

BODY_SECONDS = 600
"""The whole of a body may take so long: 75 MB at a megabit a second."""

MAX_VALUES = 25_000
"""Values in a JSON body at most, told by its commas and brackets, also those in texts: a prompt has 20,000
characters. A million values of two bytes each would stop this server for half a minute."""


FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
GZIP = b"\x1f\x8b"
UNCOMPRESSED = "Send it as it is, without Content-Encoding."

LARGE_BYTES = 262_144
"""A larger body is parsed by a thread: 50 MB take a quarter of a second, and others' calls wait."""

PARSING = CapacityLimiter(2)
"""Each has the body twice for a moment."""

T = TypeVar("T")


async def read_json(request: Request, limit: int, check: Callable[[object], T]) -> T:
    """What `check` makes of the parsed body, any JSON value.

    Raises BadInput, WrongBody, BodyTooLarge once it is past `limit` bytes, and what `check` raises.
    """
    body, kind = await _read(request, limit), request.headers.get("content-type", "").partition(";")[0]
    if len(body) < LARGE_BYTES:
        return check(_parse(body, kind))
    return await to_thread.run_sync(lambda: check(_parse(body, kind)), limiter=PARSING)


def check_values(texts: Iterable[bytes | bytearray]) -> None:
    """Raises BadInput when pieces of JSON hold more than MAX_VALUES together."""
    if sum(text.count(mark) for text in texts for mark in (b",", b"[", b"{")) > MAX_VALUES:
        sentence = f"body: it holds more than {MAX_VALUES} values."
        raise BadInput(sentence, detail=[{"loc": ["body"], "msg": sentence, "type": "too_long"}])


def _parse(body: bytearray, kind: str) -> object:
    """`kind`: the Content-Type that it claims, which is of interest only if it is no JSON: curl says form."""
    check_values([body])
    try:
        # Unlike json.loads it refuses NaN, lone surrogates and deep nesting: nothing behind us takes them.
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        if not body.strip():
            raise not_json("the body is empty") from None
        if kind.strip().lower() in FORMS and not body.lstrip().startswith((b"{", b"[")):
            raise WrongBody("The body is a form; send one JSON object, as application/json.") from None
        if body.startswith(GZIP):
            raise WrongBody(f"The body is compressed (gzip). {UNCOMPRESSED}") from None
        raise not_json(str(error)) from None


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body as it is. Raises BodyTooLarge once it is past `limit` bytes, BodyTooSlow, and Unavailable."""
    return bytes(await _read(request, limit))


async def _read(request: Request, limit: int) -> bytearray:
    body = bytearray()
    async with in_time():
        async for chunk in chunks(request, limit):
            body += chunk
    return body


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raises BodyTooSlow when reading within takes too long."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError:
        raise BodyTooSlow(BODY_SECONDS) from None


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives, which counts as in flight until the call ends.

    Raises WrongBody, BodyTooLarge and Unavailable, before anything is read if its length is declared.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        # RFC 7694: the header says what would be taken.
        raise WrongBody(
            f"The body is compressed ({quoted(coding)}). {UNCOMPRESSED}", {"Accept-Encoding": "identity"}
        )
    share, owner, declared = share_of(request), request.scope["state"].get("owner"), _declared_length(request)
    if declared > limit:
        raise BodyTooLarge(limit)
    share.check(owner, declared)
    received = 0
    async for chunk in request.stream():
        share.take(owner, len(chunk))
        received += len(chunk)
        if received > limit:
            raise BodyTooLarge(limit)
        yield chunk


def _declared_length(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0
