"""Who is calling: one dependency for every route that is not public.

With keys, the owner of a call is the name of its key. Without keys any token is taken, or none, but only from
this machine's own programs and pages: the caller's address, the Host header (DNS rebinding) and the Origin
header (a web page elsewhere that posts to this server) are checked.
"""

import hashlib
import hmac
import logging
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from app.config import Settings
from app.errors import BadToken, ConfigError, Misdirected

LOCAL_OWNER = "local"
"""Owner of every request while no keys are configured."""

FORWARDED = ("forwarded", "x-forwarded-", "x-real-ip", "via")
"""How headers begin that a proxy adds: whom it serves, nobody here can tell."""

NAME_AND_KEY = (
    "; of name:key the part before the colon is the key's name, and the token is what comes after it"
)
"""Said of every token with a colon: whether such a name or key exists is not told."""

log = logging.getLogger("zturbo")


class Key(NamedTuple):
    name: str
    digest: bytes
    """SHA-256 of the key: the key itself is not kept."""


class Keys:
    """The keys of the settings and of the key file, which is read again when it changes."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for an entry that is no `name:key`, or a file that cannot be read."""
        self.file = settings.api_keys_file
        self.fixed = parse_keys(settings.api_keys.split(","), "ZTURBO_API_KEYS")
        self.open = not self.fixed and self.file is None
        """No keys are configured. A key file that has become empty opens nothing."""
        self.from_file: list[Key] = []
        self.seen = _stamp(self.file)
        if self.file is not None:
            self.from_file = read_key_file(self.file)

    def __len__(self) -> int:
        return len(self.fixed) + len(self.from_file)

    def owner_of(self, token: str) -> str | None:
        """Name of the key that `token` is, or None. Takes the same time for every wrong token."""
        self._follow_file()
        digest = _digest(token)
        matches = [key.name for key in self.fixed + self.from_file if hmac.compare_digest(key.digest, digest)]
        return matches[0] if matches else None

    def _follow_file(self) -> None:
        if self.file is None or (stamp := _stamp(self.file)) == self.seen:
            return
        self.seen = stamp
        try:
            self.from_file = read_key_file(self.file)
        except ConfigError as error:
            log.error("%s The keys read before stay valid.", error)


def read_key_file(file: Path) -> list[Key]:
    """One `name:key` a line; empty lines and lines that start with # are skipped."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The key file {file} cannot be read: {type(error).__name__}.") from error
    return parse_keys([line for line in lines if not line.lstrip().startswith("#")], str(file))


def parse_keys(entries: list[str], source: str) -> list[Key]:
    keys = []
    for number, entry in enumerate(entries, 1):
        if not entry.strip():
            continue
        name, colon, key = entry.strip().partition(":")
        if not (name and colon and key):
            # The entry itself may be a bare key, so it is not quoted.
            raise ConfigError(f"Entry {number} of {source} is not of the form name:key.")
        keys.append(Key(name, _digest(key)))
    return keys


def check_exposure(settings: Settings) -> Keys:
    """The keys of these settings. Raises ConfigError rather than serve strangers without one."""
    keys = Keys(settings)
    if keys.open and settings.trusted_proxies:
        raise ConfigError(
            "ZTURBO_TRUSTED_PROXIES is of use only with a key: without one no call of a proxy is served. "
            "Set ZTURBO_API_KEYS=name:key (openssl rand -hex 24 makes a key)."
        )
    if not is_loopback(settings.host) and not len(keys):
        raise ConfigError(
            f"Refusing to listen on {settings.host} without a key: other machines could reach this server. "
            "Set ZTURBO_API_KEYS=name:key (openssl rand -hex 24 makes a key), or listen on 127.0.0.1."
        )
    return keys


class _Caller(SecurityBase):
    """A dependency that FastAPI also writes into the OpenAPI document."""

    scheme_name = "HTTPBearer"
    model = HTTPBearer(description="A key of ZTURBO_API_KEYS or ZTURBO_API_KEYS_FILE.")

    async def __call__(self, request: Request) -> str:
        """Name of the caller's key. Raises BadToken or Misdirected."""
        keys: Keys = request.app.state.keys
        if keys.open:
            _require_this_machine(request)
            name: str | None = LOCAL_OWNER
        elif token := _token(request):
            name = keys.owner_of(token)
        else:
            raise BadToken("No token: send the header Authorization: Bearer <key>.")
        if name is None:
            told = NAME_AND_KEY if ":" in token else ""
            raise BadToken(f"The token is none of this server's keys{told}.")
        request.state.owner = name
        return name


owner = _Caller()


async def keyless(request: Request) -> None:
    """For routes that want no key: while there is none, they too are for this machine. Raises Misdirected."""
    keys: Keys = request.app.state.keys
    if keys.open:
        _require_this_machine(request)


def _token(request: Request) -> str:
    """The sibling dialect's clients say `Key` where others say `Bearer`."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() in ("bearer", "key") else ""


async def _known_owner(request: Request) -> str:
    """As `owner`, which every private router depends on, has found it."""
    name: str = request.state.owner
    return name


Owner = Annotated[str, Depends(_known_owner)]


def _require_this_machine(request: Request) -> None:
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if request.client is not None and not is_loopback(request.client.host):
        raise Misdirected("Without a key only this machine is served; set ZTURBO_API_KEYS to serve others.")
    if any(name.startswith(FORWARDED) for name in request.headers):
        raise Misdirected("Without a key no call through a proxy is served; set ZTURBO_API_KEYS.")
    if not is_loopback(_hostname(host)):
        raise Misdirected("Without a key only Host localhost or 127.0.0.1 is served; set ZTURBO_API_KEYS.")
    if origin is not None and origin != f"{request.scope['scheme']}://{host}":
        raise Misdirected("Without a key no page of another origin is served; set ZTURBO_API_KEYS.")


@lru_cache
def is_loopback(host: str) -> bool:
    """Whether an address or name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


def _hostname(netloc: str) -> str:
    if "@" in netloc:
        # A user's name has no place in a Host header.
        return ""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    try:
        stat = file.stat() if file else None
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None
