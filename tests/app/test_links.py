"""Absolute URLs: by the caller's own address, the public base, or a trusted proxy's word."""

from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.config import Settings
from app.errors import ConfigError
from app.http.trusted_proxy import TrustedProxy, read_networks
from app.main import create_app
from tests.support.http_api import in_process

pytestmark = pytest.mark.anyio


async def base_seen(
    settings: Settings, headers: dict[str, str], address: str = "127.0.0.1", **changes: Any
) -> str:
    # With a key: without one no other host is served.
    app = create_app(settings.model_copy(update={"api_keys": "ann:key"} | changes))
    async with in_process(app, address=address) as http:
        answer = await http.get("/", headers=headers)
    await app.state.requests.close()
    url: str = answer.json()["models"]
    return url.removesuffix("/v1/models")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9000", "my_host.lan:80"])
async def test_urls_start_with_the_callers_own_host(settings: Settings, host: str) -> None:
    assert await base_seen(settings, {"Host": host}) == f"http://{host}"


@pytest.mark.parametrize("host", ["", "a b", "evil.com/x?", 'x"y', "user@host", "host:123456"])
async def test_host_that_cannot_stand_in_a_url_is_not_repeated(settings: Settings, host: str) -> None:
    assert await base_seen(settings, {"Host": host}) == "http://127.0.0.1:8000"


async def test_public_base_url_wins(settings: Settings) -> None:
    base = await base_seen(settings, {"Host": "inside"}, public_base_url="https://example.com/pictures/")
    assert base == "https://example.com/pictures"


FORWARDED = {
    "Host": "inside:8000",
    "X-Forwarded-Host": "pictures.example.com",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "203.0.113.7",
}


async def test_forwarded_headers_of_a_stranger_are_not_believed(settings: Settings) -> None:
    assert await base_seen(settings, FORWARDED) == "http://inside:8000"
    assert (
        await base_seen(settings, FORWARDED, "10.0.0.9", trusted_proxies="10.1.0.0/16")
        == "http://inside:8000"
    )


async def test_forwarded_headers_of_a_trusted_proxy_are_believed(settings: Settings) -> None:
    base = await base_seen(settings, FORWARDED, "10.1.2.3", trusted_proxies="192.0.2.1, 10.1.0.0/16")
    assert base == "https://pictures.example.com"


async def test_last_of_several_forwarded_values_is_the_nearest_proxys(settings: Settings) -> None:
    headers = FORWARDED | {
        "X-Forwarded-Host": "evil.example.com, pictures.example.com",
        "X-Forwarded-Proto": "gopher",
    }
    assert await base_seen(settings, headers, trusted_proxies="127.0.0.1") == "http://pictures.example.com"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.1.2.3", "203.0.113.7", "203.0.113.7"),
        ("10.1.2.3", "127.0.0.1, 203.0.113.7, 10.1.0.1", "203.0.113.7"),
        ("10.1.2.3", "10.1.0.2, 10.1.0.1", "10.1.0.2"),
        ("10.1.2.3", "203.0.113.7, unknown", "unknown"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.2.0.1", "203.0.113.7", "10.2.0.1"),
        ("127.0.0.1", "203.0.113.7", "127.0.0.1"),
    ],
)
async def test_caller_is_the_nearest_address_that_is_no_trusted_proxy(
    peer: str, forwarded_for: str, client: str
) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])
        await Response()(scope, receive, send)

    proxied = TrustedProxy(app, read_networks("10.1.0.1/16"))
    transport = httpx.ASGITransport(proxied, client=(peer, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://inside") as http:
        await http.get("/", headers={"X-Forwarded-For": forwarded_for})
    assert seen == [client]


async def test_proxy_list_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="ZTURBO_TRUSTED_PROXIES"):
        read_networks("10.0.0.0/8, proxy.example.com")
