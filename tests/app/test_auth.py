"""Who may call: keys, their file, and the rules that hold while there are none."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.auth import Keys, check_exposure, is_loopback
from app.config import Settings
from app.errors import ConfigError
from app.main import create_app
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, in_process

PUBLIC = {
    "/fal/uploads/{file_id}/{name}",
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/documents/{name}",
    "/v1/files/{file_id}/{name}",
    "/playground/{name:path}",
}


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(
        _env_file=None, data_dir=tmp_path, redis_url=redis_url, api_keys="ann:secret-a, bob:secret:b"
    )


@pytest.fixture
async def open_app(settings: Settings) -> AsyncIterator[FastAPI]:
    """An application without keys."""
    app = create_app(settings.model_copy(update={"api_keys": ""}))
    yield app
    await app.state.requests.close()


@pytest.mark.anyio
async def test_every_route_but_the_public_ones_wants_a_token(app: FastAPI) -> None:
    walked = set()
    async with in_process(app) as http:
        for route in iter_route_contexts(app.routes):
            if route.path in PUBLIC:
                continue
            path = re.sub(r"{.+?}", "x", route.path)
            # OPTIONS tells nothing but the methods.
            for method in route.methods - {"OPTIONS"}:
                answer = await http.request(method, path)
                assert answer.status_code == 401, (method, path)
                assert method == "HEAD" or answer.json()["error_code"] == 400004, (method, path)
                walked.add((method, route.path))
    assert {("POST", "/v1/models/{model_id:path}"), ("GET", "/v1/requests/{request_id}/status")} <= walked


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{"Host": "rebound.example"}, {"Origin": "https://elsewhere.example"}])
async def test_without_keys_no_route_but_the_document_serves_another_page(
    open_app: FastAPI, headers: dict[str, str]
) -> None:
    async with in_process(open_app) as http:
        for route in iter_route_contexts(open_app.routes):
            if route.path == "/openapi.json":
                continue
            path = re.sub(r"{.+?}", "x", route.path)
            for method in route.methods:
                answer = await http.request(method, path, headers=headers)
                assert answer.status_code == 403, (method, path)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "Via"])
async def test_without_keys_no_call_through_a_proxy_is_served(open_app: FastAPI, name: str) -> None:
    async with in_process(open_app, headers={name: "localhost"}) as http:
        for path in ("/v1/models", "/healthz"):
            answer = await http.get(path)
            assert answer.status_code == 403
            assert "proxy" in answer.json()["message"]


def test_without_keys_no_proxy_is_trusted(settings: Settings) -> None:
    """A page whose name was rebound to this machine may say X-Forwarded-Host itself."""
    with pytest.raises(ConfigError, match="ZTURBO_TRUSTED_PROXIES"):
        create_app(settings.model_copy(update={"trusted_proxies": "127.0.0.1", "api_keys": ""}))


@pytest.mark.anyio
async def test_public_routes_want_none(app: FastAPI) -> None:
    async with in_process(app) as http:
        for path in PUBLIC:
            assert (await http.get(path)).status_code not in (401, 403)


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["Bearer secret-a", "bearer secret-a", "BEARER secret:b"])
async def test_each_key_opens(app: FastAPI, header: str) -> None:
    async with in_process(app, headers={"Authorization": header}) as http:
        assert (await http.get("/v1/models")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["Bearer secret", "Bearer secret-a2", "Bearer ann", "Basic secret-a"])
async def test_what_is_no_key_opens_nothing(app: FastAPI, header: str) -> None:
    async with in_process(app, headers={"Authorization": header}) as http:
        answer = await http.get("/v1/models")
    assert (answer.status_code, answer.json()["error_code"]) == (401, 400004)


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["ann:secret-a", "ann:wrong", "nobody:secret-a"])
async def test_token_with_the_name_before_it_is_told_of_without_an_oracle(app: FastAPI, token: str) -> None:
    async with in_process(app, headers={"Authorization": f"Bearer {token}"}) as http:
        answer = await http.get("/v1/models")
    assert answer.status_code == 401
    assert "the part before the colon is the key's name" in answer.json()["message"]


@pytest.mark.anyio
async def test_body_is_not_read_before_the_token(app: FastAPI) -> None:
    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    async with in_process(app) as http:
        assert (await http.post(SUBMIT, content=endless())).status_code == 401


def test_key_is_kept_as_its_digest_only(settings: Settings) -> None:
    assert "secret-a" not in repr(vars(Keys(settings)))


def test_key_file_is_read_again_when_it_changes(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# who may\n\nann:one\n")
    keys = Keys(settings.model_copy(update={"api_keys": "", "api_keys_file": file}))
    assert keys.owner_of("one") == "ann"
    assert keys.owner_of("two") is None

    replaced = tmp_path / "new"
    replaced.write_text("bob:two\n")
    replaced.replace(file)
    assert keys.owner_of("two") == "bob"
    assert keys.owner_of("one") is None


def test_broken_or_missing_key_file_leaves_the_keys_as_they_were(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_text("ann:one\n")
    keys = Keys(settings.model_copy(update={"api_keys_file": file}))
    file.write_text("ann:one\nsecret-without-a-name\n")
    assert keys.owner_of("one") == "ann"
    assert "Entry 2 of" in caplog.text
    assert "secret-without-a-name" not in caplog.text
    file.unlink()
    assert keys.owner_of("one") == "ann"
    assert keys.owner_of("secret-a") == "ann"


def test_keys_of_the_settings_and_of_the_file_both_open(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("cat:three\ndan:four\n")
    keys = check_exposure(settings.model_copy(update={"host": "0.0.0.0", "api_keys_file": file}))  # noqa: S104
    assert len(keys) == 4
    assert (keys.owner_of("secret:b"), keys.owner_of("three")) == ("bob", "cat")


def test_key_file_that_became_empty_opens_nothing(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("ann:one\n")
    keys = Keys(settings.model_copy(update={"api_keys": "", "api_keys_file": file}))
    file.write_text("")
    assert keys.owner_of("one") is None
    assert not keys.open


@pytest.mark.parametrize("api_keys", ["bare-secret", "ann:", ":secret", "ann:one,bare-secret"])
def test_entry_that_is_no_name_and_key_is_refused_without_repeating_it(
    settings: Settings, api_keys: str
) -> None:
    with pytest.raises(ConfigError, match="not of the form name:key") as refusal:
        Keys(settings.model_copy(update={"api_keys": api_keys}))
    assert "secret" not in str(refusal.value)


def test_key_file_that_is_not_there_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys(settings.model_copy(update={"api_keys_file": tmp_path / "none"}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "pictures.example.com"])  # noqa: S104
def test_listening_beyond_this_machine_without_a_key_is_refused(settings: Settings, host: str) -> None:
    with pytest.raises(ConfigError, match="without a key"):
        check_exposure(settings.model_copy(update={"host": host, "api_keys": ""}))
    assert len(check_exposure(settings.model_copy(update={"host": host}))) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_key(settings: Settings, host: str) -> None:
    assert check_exposure(settings.model_copy(update={"host": host, "api_keys": ""})).open


@pytest.mark.parametrize(
    "host", ["", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "2130706433"]
)
def test_other_names_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.anyio
@pytest.mark.parametrize("token", [None, "anything"])
async def test_any_token_or_none_is_taken_without_keys(open_app: FastAPI, token: str | None) -> None:
    async with in_process(open_app, token=token) as http:
        answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT)
    assert answer.status_code == 200


async def refused(app: FastAPI, **options: object) -> httpx.Response:
    async with in_process(app, **options) as http:
        answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT)
    assert (answer.status_code, answer.json()["error_code"]) == (403, 403002)
    return answer


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost.evil.example.com:8000", "127.0.0.1@evil.example.com"]
)
async def test_host_of_a_rebound_name_is_refused_without_keys(open_app: FastAPI, host: str) -> None:
    await refused(open_app, headers={"Host": host})


@pytest.mark.anyio
@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://localhost:3000"])
async def test_page_of_another_origin_is_refused_without_keys(open_app: FastAPI, origin: str) -> None:
    await refused(open_app, headers={"Origin": origin})


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_own_page_is_served_without_keys(open_app: FastAPI, scheme: str) -> None:
    own = f"{scheme}://localhost:8000"
    async with in_process(open_app, base_url=own, headers={"Origin": own}) as http:
        assert (await http.post(SUBMIT, json=DOCUMENTED_INPUT)).status_code == 200


@pytest.mark.anyio
async def test_page_without_tls_is_another_origin_than_the_server_with_it(open_app: FastAPI) -> None:
    await refused(open_app, base_url="https://localhost:8000", headers={"Origin": "http://localhost:8000"})


@pytest.mark.anyio
async def test_caller_from_elsewhere_is_refused_without_keys(open_app: FastAPI) -> None:
    await refused(open_app, address="192.168.0.7")


@pytest.mark.anyio
async def test_with_keys_host_origin_and_address_do_not_matter(app: FastAPI) -> None:
    headers = {"Host": "pictures.example.com", "Origin": "https://app.example.com"}
    async with in_process(app, address="203.0.113.7") as http:
        answer = await http.get("/v1/models", headers=headers | {"Authorization": "Bearer secret-a"})
    assert answer.status_code == 200
