"""Calls from pages of other origins: preflights, and what a page may read of an answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from app.config import Settings
from app.errors import ConfigError
from app.main import create_app
from tests.support.http_api import MODEL, SUBMIT, in_process

PAGE = "https://app.example.com"
OTHER = "https://other.example.com"
ASKED = "authorization,content-type,x-stainless-os"
FAL = "/fal-ai/z-image/turbo/controlnet/lora"


@asynccontextmanager
async def calling(
    settings: Settings, origin: str | None = PAGE, **changed: str
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update={"api_keys": "ann:secret"} | changed))
    async with in_process(app, headers={"Origin": origin} if origin else {}) as http:
        yield http
    await app.state.requests.close()


async def preflight(http: httpx.AsyncClient, path: str, method: str = "POST") -> httpx.Response:
    headers = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": ASKED}
    return await http.options(path, headers=headers)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", SUBMIT),
        ("GET", "/v1/requests/abc/events"),
        ("DELETE", "/v1/requests/abc"),
        ("POST", "/v1/files"),
        ("POST", FAL),
        ("PUT", "/fal-ai/z-image/requests/abc/cancel"),
        ("PUT", "/fal/uploads/0/upload.png"),
        ("POST", "/fal/proxy"),
    ],
)
async def test_preflight_is_answered_without_a_key(settings: Settings, method: str, path: str) -> None:
    async with calling(settings) as http:
        answer = await preflight(http, path, method)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    assert answer.headers["access-control-allow-headers"] == ASKED
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/v1/models", 401),
        ("/nowhere", 404),
        ("/v1/files/0/x.png", 404),
        (SUBMIT + "/", 401),
    ],
)
async def test_every_answer_may_be_read(settings: Settings, path: str, status: int) -> None:
    async with calling(settings) as http:
        answer = await http.get(path)
    assert answer.status_code == status
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


@pytest.mark.anyio
async def test_answer_through_fals_proxy_names_the_origin_once(settings: Settings) -> None:
    headers = {"x-fal-target-url": "https://queue.fal.run/fal-ai/z-image/requests/abc/status"}
    async with calling(settings, allow_origins=PAGE) as http:
        answer = await http.get("/fal/proxy", headers=headers | {"Authorization": "Key secret"})
    assert answer.status_code == 404
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]


@pytest.mark.anyio
async def test_own_fault_may_be_read_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.routes.models.search", lambda *_: 1 / 0)
    async with calling(settings) as http:
        answer = await http.get("/v1/models", headers={"Authorization": "Bearer secret"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (500, "*")


@pytest.mark.anyio
@pytest.mark.parametrize(("origin", "told"), [(PAGE, PAGE), (OTHER, None), ("null", None), (None, None)])
async def test_named_origins_alone_may_read(settings: Settings, origin: str | None, told: str | None) -> None:
    async with calling(settings, origin, allow_origins=f"http://localhost:3000, {PAGE}") as http:
        for path in ("/healthz", f"/v1/models/{MODEL}"):
            answer = await http.get(path)
            assert answer.headers.get("access-control-allow-origin") == told
            # A cache gives no page what was said to another.
            assert "Origin" in answer.headers["vary"]


@pytest.mark.anyio
async def test_preflight_of_another_origin_is_refused_in_words(settings: Settings) -> None:
    async with calling(settings, OTHER, allow_origins=PAGE) as http:
        answer = await preflight(http, SUBMIT)
    assert answer.status_code == 403
    assert "ZTURBO_ALLOW_ORIGINS" in answer.json()["message"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.anyio
async def test_options_that_is_no_preflight_is_a_call_like_any(settings: Settings) -> None:
    async with calling(settings) as http:
        assert (await http.options("/healthz")).status_code == 405


@pytest.mark.anyio
async def test_without_keys_no_other_origin_may_anything(settings: Settings) -> None:
    async with calling(settings, api_keys="", allow_origins=PAGE) as http:
        answers = [await preflight(http, SUBMIT), await http.get("/healthz"), await http.get("/v1/models")]
    assert [answer.status_code for answer in answers] == [405, 403, 403]
    for answer in answers:
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origins", ["app.example.com", f"{PAGE}/", f"{PAGE} {OTHER}", "*", "HTTPS://A.example"]
)
def test_what_is_no_origin_is_refused_at_the_start(settings: Settings, origins: str) -> None:
    with pytest.raises(ConfigError, match="ZTURBO_ALLOW_ORIGINS"):
        create_app(settings.model_copy(update={"api_keys": "ann:secret", "allow_origins": origins}))
