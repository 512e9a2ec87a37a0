"""How uvicorn runs the application: the one place, for `zturbo serve`, `zturbo api` and the tests."""

import uvicorn
from fastapi import FastAPI

from app.config import Settings

GRACE_SECONDS = 10
"""Time for calls in flight to end when the server is told to stop."""


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # Paths hold ids that open files; app.access writes a line without them.
        access_log=False,
        log_config=None,
        # app.proxy does this, with X-Forwarded-Host.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
