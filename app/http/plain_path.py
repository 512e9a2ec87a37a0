"""One spelling of each path: a slash at the end, or two in a row, mean nothing.

Clients join a base URL and a path in either way, and several take a redirect for an error.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile("//+")


class PlainPath:
    """Middleware: the application sees the path as it is documented."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # In place: the access log reads afterwards which route this scope came to.
            scope["path"] = _SLASHES.sub("/", scope["path"]).rstrip("/") or "/"
        await self.app(scope, receive, send)
