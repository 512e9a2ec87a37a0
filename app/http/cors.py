"""Cross-origin calls: leave for the pages of other origins to call this server, once there are keys.

A browser sends no cookie of ours, since there are none: what lets a page in is the Bearer key that its script
sends. Without keys nothing here is in force, and app.auth refuses other origins. The Fetch standard has the
headers: https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ConfigError, Misdirected

METHODS = "GET, HEAD, POST, PUT, DELETE"
EXPOSED = (
    "Allow, ETag, Preference-Applied, Retry-After, WWW-Authenticate, "
    "x-fal-request-id, x-fal-request-timeout-type, x-warnings"
)
"""Headers of our answers that a script may read besides those that every script may."""

PREFLIGHT_SECONDS = 7200
"""How long a browser may skip the next preflight; Chromium takes no more."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,*]+")


def read_origins(text: str) -> frozenset[str]:
    """Origins, comma separated; empty: any. Raises ConfigError."""
    origins = frozenset(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"ZTURBO_ALLOW_ORIGINS: {origin!r} is no origin. Write scheme, host and port, small, "
                "and without a path: https://app.example.com, http://localhost:3000."
            )
    return origins


class Cors:
    """Middleware: answers preflights, and tells the browser on every answer, errors too, who may read it."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        self.app = app
        self.origins = origins
        """Empty: any."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = origin in self.origins if self.origins else True

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                if self.origins:
                    # What is kept for one origin must not be given to another.
                    told.add_vary_header("Origin")
                if allowed:
                    told["Access-Control-Allow-Origin"] = origin if self.origins else "*"
                    told["Access-Control-Expose-Headers"] = EXPOSED
            await send(message)

        if origin and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            answer = _preflight(headers) if allowed else _refusal(origin)
            await answer(scope, receive, tell)
        else:
            await self.app(scope, receive, tell)


def _preflight(headers: Headers) -> Response:
    """The answer to a preflight. It is the same for every path: the call that follows is judged by itself."""
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": METHODS,
            # `*` would not stand for Authorization.
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "Authorization"),
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
            "Vary": "Access-Control-Request-Headers",
        },
    )


def _refusal(origin: str) -> Response:
    return Misdirected(
        f"Pages of {origin} may not call this server; ZTURBO_ALLOW_ORIGINS names those that may."
    ).response()
