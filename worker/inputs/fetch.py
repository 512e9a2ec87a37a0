"""The fetching of what a caller's URL names, over HTTP: guarded, and limited in size and time.

Messages name the field and the reason, never an address, a header or a body of the other side. No proxy of
the environment is used: behind one, nobody would judge the address.
"""

import ssl
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote, urljoin

import httpcore

from models.weights.reference import ReferenceFault, check_url
from worker.counters import count
from worker.errors import FetchError
from worker.inputs.guard import AllowList, Deadline, GuardedBackend, Refused

MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
DEFAULT_PORTS = {"http": 80, "https": 443}
KEPT_IN_TARGET = "%/:=&?~#+!$,;'@()*[]"
"""Characters of a path or query that are sent as they are; `%` because callers encode already."""

HEADERS = [
    (b"User-Agent", b"zturbo"),
    (b"Accept", b"*/*"),
    # A compressed body would defeat the cap on its size.
    (b"Accept-Encoding", b"identity"),
]


class Version(NamedTuple):
    """What a server says by which it can tell later whether the body is still the same; empty: nothing."""

    etag: str = ""
    modified: str = ""

    def conditions(self) -> list[tuple[bytes, bytes]]:
        """Headers that ask for a body only if it is another one by now."""
        pairs = ((b"If-None-Match", self.etag), (b"If-Modified-Since", self.modified))
        return [(name, value.encode("latin-1")) for name, value in pairs if value]


UNKNOWN = Version()


class Limits(NamedTuple):
    max_bytes: int
    seconds: float
    """Longest time from the first name lookup to the last byte, redirects included."""


def fetch(
    url: str,
    field: str,
    limits: Limits,
    allowed: AllowList,
    on_chunk: Callable[[bytes], object],
    known: Version = UNKNOWN,
) -> Version | None:
    """Gives the body of `url` to `on_chunk`, piece by piece; what that raises stops the fetch.

    Returns the body's version; None: it is still the `known` one, and nothing was given. `field` is where the
    URL came from, for the message. Raises FetchError.
    """
    outcome = "stopped"
    try:
        version = _fetch(url, field, limits, allowed, on_chunk, known)
        outcome = "fetched" if version else "unchanged"
        return version
    except FetchError:
        outcome = "failed"
        raise
    finally:
        count("fetch", "lora" if field.startswith("loras") else "image", outcome)


def _fetch(
    url: str,
    field: str,
    limits: Limits,
    allowed: AllowList,
    on_chunk: Callable[[bytes], object],
    known: Version,
) -> Version | None:
    deadline = Deadline(limits.seconds)
    backend = GuardedBackend(allowed, deadline)
    try:
        with httpcore.ConnectionPool(tls(), network_backend=backend) as pool:
            for _ in range(MAX_REDIRECTS + 1):
                target = read_url(url, field)
                headers = [host_header(target), *HEADERS, *known.conditions()]
                with pool.stream("GET", target, headers=headers) as response:
                    if response.status == HTTPStatus.NOT_MODIFIED and known.conditions():
                        return None
                    if response.status not in REDIRECTS:
                        _read_body(response, field, limits.max_bytes, on_chunk)
                        return _version(response)
                    url = _next_url(url, response, field)
    except Refused:
        raise FetchError(unreachable(field)) from None
    except httpcore.TimeoutException:
        raise FetchError(f"{field}: the server did not send the file in time.") from None
    except httpcore.ConnectError as error:
        if isinstance(error.__context__, ssl.SSLError):
            raise FetchError(f"{field}: the server's TLS certificate is not valid for its name.") from None
        raise FetchError(f"{field}: no connection to the server could be made.") from None
    except httpcore.NetworkError:
        raise FetchError(f"{field}: the connection was lost before the file was complete.") from None
    except httpcore.ProtocolError:
        raise FetchError(f"{field}: the server's answer is not HTTP, or was cut off.") from None
    except OSError:
        raise FetchError(unreachable(field)) from None
    raise FetchError(f"{field}: the URL redirects more than {MAX_REDIRECTS} times.")


@cache
def tls() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


def unreachable(field: str) -> str:
    # One sentence for a name that does not exist and one that is not allowed: which it is tells of our net.
    return (
        f"{field}: the host of this URL cannot be found, or is one that this server does not fetch from "
        "(public hosts on ports 80 and 443, and what ZTURBO_ALLOW_HOSTS names)."
    )


def read_url(url: str, field: str) -> httpcore.URL:
    """The URL as it is connected to, so that nothing is checked by one parser and used by another."""
    try:
        parts = check_url(url)
    except ReferenceFault as fault:
        raise FetchError(f"{field}: {fault}.") from None
    host = (parts.hostname or "").encode("idna")
    target = quote(parts.path or "/", safe=KEPT_IN_TARGET)
    if parts.query:
        target += "?" + quote(parts.query, safe=KEPT_IN_TARGET)
    port = None if parts.port == DEFAULT_PORTS[parts.scheme] else parts.port
    return httpcore.URL(scheme=parts.scheme.encode(), host=host, port=port, target=target.encode("ascii"))


def host_header(target: httpcore.URL) -> tuple[bytes, bytes]:
    host = b"[%b]" % target.host if b":" in target.host else target.host
    return b"Host", host + (b":%d" % target.port if target.port else b"")


def _next_url(url: str, response: httpcore.Response, field: str) -> str:
    location = _header(response, b"location")
    if not location:
        raise FetchError(f"{field}: the server redirects to nowhere.")
    try:
        following = urljoin(url, location)
    except ValueError:
        raise FetchError(f"{field}: the server redirects to what is not a URL.") from None
    if url.startswith("https:") and not following.startswith("https:"):
        raise FetchError(f"{field}: the URL redirects from https to something less safe.")
    return following


def _read_body(
    response: httpcore.Response, field: str, max_bytes: int, on_chunk: Callable[[bytes], object]
) -> None:
    if response.status != HTTPStatus.OK:
        raise FetchError(f"{field}: the server of this URL answered {response.status}.")
    if _header(response, b"content-encoding").lower() not in ("", "identity"):
        raise FetchError(f"{field}: the server compresses the file although it was asked not to.")
    too_large = FetchError(f"{field}: the file is larger than {_megabytes(max_bytes)} MB.")
    length = _header(response, b"content-length")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    received = 0
    for chunk in response.iter_stream():
        received += len(chunk)
        if received > max_bytes:
            raise too_large
        on_chunk(chunk)


def _version(response: httpcore.Response) -> Version:
    if "no-store" in _header(response, b"cache-control").lower():
        return UNKNOWN
    return Version(_header(response, b"etag"), _header(response, b"last-modified"))


def _header(response: httpcore.Response, name: bytes) -> str:
    values = [value for key, value in response.headers if key.lower() == name]
    return values[0].decode("latin-1").strip() if values else ""


def _megabytes(count: int) -> str:
    return f"{count / 1e6:g}"
