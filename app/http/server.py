"""The way in which uvicorn runs the application, for `zturbo serve`, `zturbo api` and the tests alike."""

import resource
import ssl

import uvicorn
from fastapi import FastAPI

from app.config import Settings
from app.errors import ConfigError

GRACE_SECONDS = 10
"""Time for calls in flight to end when the server is told to stop."""


OPEN_FILES = 65_536
"""Each call, and each stream of events, is an open file; most systems begin at 1,024."""


def allow_open_files() -> None:
    """Raises this process's limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Raises ConfigError for a certificate that cannot be used."""
    check_tls(settings)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        # Paths hold ids that open files; app.http.access writes a line without them.
        access_log=False,
        log_config=None,
        # app.http.trusted_proxy does this, with X-Forwarded-Host.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def check_tls(settings: Settings) -> None:
    """Raises ConfigError unless certificate and key, if they are named, can be used."""
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise ConfigError("--tls-key (ZTURBO_TLS_KEY) is of use only with --tls-cert.")
        return
    try:
        # Without a password none is asked for, which would wait at a terminal for ever.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_cert, settings.tls_key, password=""
        )
    except OSError as error:
        raise ConfigError(
            f"The certificate {settings.tls_cert} or its key cannot be used: {error.strerror or error}. "
            "Both are PEM files, the key without a password."
        ) from error
