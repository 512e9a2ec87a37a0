"""`python -m app.health api|worker`: the containers' health check, from the standard library alone.

It runs every half minute in every container. `zturbo health` says the same but reads a command line and
settings first, which takes a fifth of a second; here ZTURBO_HOST, ZTURBO_PORT and ZTURBO_TLS_CERT come by the
environment.
"""

import os
import sys

UNAVAILABLE = 69
"""Exit status, as `zturbo health` has it."""

HEALTH_SECONDS = 10.0


def api_fault(url: str) -> str | None:
    """Why the API at this base URL is not well, as a sentence; None: it is."""
    import ssl
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection: HTTPConnection
    if parts.scheme == "https":
        # Not verified: the certificate is for the name by which others know this machine.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = HTTPSConnection(parts.netloc, timeout=HEALTH_SECONDS, context=context)
    else:
        connection = HTTPConnection(parts.netloc, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"The API does not answer: {error}."
    finally:
        connection.close()
    return None if status == 200 else f"The API answers {url}/healthz with status {status}."


def own_url(host: str, port: int, tls: bool) -> str:
    """The URL of the server that listens on `host`, perhaps everywhere, for programs on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def main() -> int:
    part = sys.argv[1]
    if part == "api":
        host, port = os.environ.get("ZTURBO_HOST", "127.0.0.1"), int(os.environ.get("ZTURBO_PORT", "8000"))
        fault = api_fault(own_url(host, port, bool(os.environ.get("ZTURBO_TLS_CERT"))))
    else:
        from worker.runtime import heartbeat

        fault = heartbeat.fault()
    if fault:
        print(fault, file=sys.stderr)
    return UNAVAILABLE if fault else 0


if __name__ == "__main__":
    sys.exit(main())
