"""What a trusted reverse proxy says about the caller: X-Forwarded-For, -Proto and -Host.

uvicorn's own middleware knows no X-Forwarded-Host and hides the proxy's address from what comes after it,
so it is switched off (app.http.server) and this one is used.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ConfigError

Network = IPv4Network | IPv6Network


def read_networks(text: str) -> list[Network]:
    """Addresses and CIDRs, comma separated. Raises ConfigError."""
    try:
        return [ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"ZTURBO_TRUSTED_PROXIES: {error}.") from error


class TrustedProxy:
    """Puts the forwarded scheme, host and client address in the scope when the peer is a trusted proxy."""

    def __init__(self, app: ASGIApp, networks: list[Network]) -> None:
        self.app = app
        self.networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["client"] and self._trusts(scope["client"][0]):
            self._believe(scope)
        await self.app(scope, receive, send)

    def _trusts(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self.networks)

    def _believe(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if (scheme := _last(headers, "x-forwarded-proto")) in ("http", "https"):
            scope["scheme"] = scheme
        if host := _last(headers, "x-forwarded-host"):
            MutableHeaders(scope=scope)["host"] = host
        # Each proxy appends the address that it saw: the last one that is no proxy of ours is the caller.
        for hop in reversed(_parts(headers, "x-forwarded-for")):
            scope["client"] = (hop, 0)
            if not self._trusts(hop):
                break


def _parts(headers: Headers, name: str) -> list[str]:
    return [part.strip() for value in headers.getlist(name) for part in value.split(",") if part.strip()]


def _last(headers: Headers, name: str) -> str | None:
    return parts[-1] if (parts := _parts(headers, name)) else None
