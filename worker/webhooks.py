"""Telling a caller's own server that a request has ended: signed as Standard Webhooks says, and sent once.

https://github.com/standard-webhooks/standard-webhooks: HMAC-SHA256 over `id.timestamp.body`. The URL is a
stranger's, so the same guard stands before it as before one that is fetched, and no redirect is followed.
"""

import base64
import hashlib
import hmac
import time

import httpcore

from worker.errors import FetchError
from worker.inputs.fetch import DEFAULT_PORTS, host_header, read_url, tls, unreachable
from worker.inputs.guard import AllowList, Deadline, GuardedBackend, Refused

POST_SECONDS = 15.0
KEY_PREFIX = "whsec_"

FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 4 * 3600.0
TRY_SECONDS = 24 * 3600.0
GONE = 410
"""What a receiver answers that wants to hear no more."""


def signing_key(key: bytes) -> str:
    """How the key is written for whoever verifies."""
    return KEY_PREFIX + base64.b64encode(key).decode()


def sign(key: bytes, request_id: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """The headers that prove to who has the key that these bytes are ours and are fresh."""
    timestamp = str(int(time.time() if now is None else now))
    signed = hmac.new(key, f"{request_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": request_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }


def judge_url(url: str, field: str, allowed: AllowList) -> None:
    """Raises FetchError, naming `field`, for a URL that is not posted to whatever a name in it means."""
    target = read_url(url, field)
    try:
        allowed.judge_literal(target.host.decode(), target.port or DEFAULT_PORTS[target.scheme.decode()])
    except Refused:
        raise FetchError(unreachable(field)) from None


def post(url: str, headers: dict[str, str], body: bytes, allowed: AllowList) -> int:
    """The HTTP status of the answer. Raises FetchError, whose message tells nothing of our own network."""
    backend = GuardedBackend(allowed, Deadline(POST_SECONDS))
    try:
        with httpcore.ConnectionPool(tls(), network_backend=backend) as pool:
            target = read_url(url, "webhook")
            own = [host_header(target), (b"User-Agent", b"zturbo"), (b"Content-Type", b"application/json")]
            signed = [(name.encode(), text.encode()) for name, text in headers.items()]
            with pool.stream("POST", target, headers=own + signed, content=body) as answer:
                return answer.status
    except httpcore.TimeoutException:
        raise FetchError("webhook: the server did not answer in time.") from None
    except (Refused, OSError):
        raise FetchError(unreachable("webhook")) from None
    except (httpcore.NetworkError, httpcore.ProtocolError):
        raise FetchError("webhook: no connection to the server, or no HTTP answer from it.") from None


def next_pause(attempts: int, since_end: float) -> float | None:
    """Seconds until the next attempt after so many that failed; None when 24 hours have been tried."""
    pause: float = min(FIRST_PAUSE_SECONDS * 4.0 ** (attempts - 1), LONGEST_PAUSE_SECONDS)
    return pause if since_end + pause <= TRY_SECONDS else None
