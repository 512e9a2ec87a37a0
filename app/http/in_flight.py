"""The bytes of all calls that this process has in hand at once: bodies that come in, pictures that go out.

They are under one bound, so that memory does not grow with the number of callers; one key has half of it at
most, so that the others are served while it sends.
"""

from collections import Counter

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Unavailable

SCOPE = "zturbo.in_flight"
RETRY_SECONDS = 2


class BytesInFlight:
    """Middleware: gives each call its `Share`, and takes back what it held when the call ends."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.held: Counter[str | None] = Counter()
        """Bytes by the key's name; None: calls without a key."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        share = scope[SCOPE] = Share(self)
        try:
            await self.app(scope, receive, send)
        finally:
            share.release()


class Share:
    """What one call holds."""

    def __init__(self, whole: BytesInFlight) -> None:
        self._whole = whole
        self._owner: str | None = None
        self._held = 0

    def check(self, owner: str | None, count: int) -> None:
        """Raises Unavailable when so many bytes more are too many."""
        limit, held = self._whole.limit, self._whole.held
        if held.total() + count > limit or (held[owner] + count) * 2 > limit:
            raise Unavailable(
                "This server has as many bytes of its callers in hand as it may; "
                f"send this again in {RETRY_SECONDS} s.",
                RETRY_SECONDS,
            )

    def take(self, owner: str | None, count: int) -> None:
        """Holds so many bytes more, until the call ends. Raises Unavailable."""
        self.check(owner, count)
        self._owner = owner
        self._held += count
        self._whole.held[owner] += count

    def release(self) -> None:
        """The call needs its bytes no more."""
        held = self._whole.held
        held[self._owner] -= self._held
        self._held = 0
        if not held[self._owner]:
            del held[self._owner]


def share_of(request: Request) -> Share:
    share: Share = request.scope[SCOPE]
    return share
