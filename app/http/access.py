"""The outermost layer of a call: one log line for each, and an answer also when our own code fails.

A line holds no prompt, no URL and no key: the route's template stands for the path, whose ids open files.
"""

import logging
import secrets
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Internal
from worker.logs import request_id

CLIENT_LEFT = 499
"""Logged for a caller who hung up; nobody is there to read it."""

PROBES = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by whoever watches this server; a line for each would bury the others."""

log = logging.getLogger("zturbo.access")


class AccessLog:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        state = scope.setdefault("state", {})
        # One task may answer several calls.
        request_id.set(None)
        status: int | None = None

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:
            call_id = f"call_{secrets.token_hex(8)}"
            log.exception("call %s failed", call_id)
            if status is not None:
                # The answer has begun and cannot be taken back: let the server cut the connection.
                raise
            await Internal(call_id).response()(scope, receive, watch)
        finally:
            fields = {
                "method": scope["method"],
                "route": getattr(scope.get("route"), "path", None),
                "status": status,
                "ms": round((time.perf_counter() - started) * 1000, 1),
                "key": state.get("owner"),
            }
            level = logging.DEBUG if fields["route"] in PROBES else logging.INFO
            known = {name: value for name, value in fields.items() if value is not None}
            log.log(level, "call", extra=known)
