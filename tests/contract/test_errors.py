"""The error table of the contract: one body in every case, never a redirect, a 409 or a traceback."""

import logging
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.config import Settings
from app.http.multipart import ENVELOPE_BYTES
from app.main import create_app
from tests.support.http_api import DOCUMENTED_INPUT, PNG, SUBMIT, WorkerHands, in_process
from tests.support.redis_server import RedisServer
from worker.errors import StorageError

pytestmark = pytest.mark.anyio

EVERY_SUBMIT: dict[str, dict[str, Any]] = {
    SUBMIT: {"json": DOCUMENTED_INPUT},
    "/fal-ai/z-image/turbo": {"json": {"prompt": "a fox"}},
    "/fal/run/fal-ai/z-image/turbo": {"json": {"prompt": "a fox"}},
    "/v1/images/generations": {"json": {"prompt": "a fox"}},
    "/v1/images/edits": {"data": {"prompt": "a fox" * 200}, "files": {"image": PNG}},
    "/hf/tongyi-mai/z-image/turbo": {"json": {"inputs": "a fox"}},
}
"""A good call of every dialect's route that makes a request."""


def check(answer: httpx.Response, status: int, error_code: int) -> dict[str, Any]:
    """The body, once it is the contract's."""
    assert answer.status_code == status
    body: dict[str, Any] = answer.json()
    assert list(body) == ["error_code", "error_message", "message", "detail", "error"]
    assert body["error_code"] == error_code
    assert body["error_message"] == body["message"] != ""
    assert body["detail"] == body["message"] or isinstance(body["detail"][0], dict)
    assert (body["error"]["message"], body["error"]["code"]) == (body["message"], str(error_code))
    assert "Traceback" not in answer.text
    return body


@pytest.fixture
async def keyed(settings: Settings) -> AsyncIterator[FastAPI]:
    """An application with two keys."""
    app = create_app(settings.model_copy(update={"api_keys": "ann:secret-a,bob:secret-b"}))
    yield app
    await app.state.requests.close()


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic c2VjcmV0LWE=", "secret-a"])
async def test_bad_or_missing_token(keyed: FastAPI, header: str | None) -> None:
    async with in_process(keyed, headers={"Authorization": header} if header else {}) as http:
        answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT)
    check(answer, 401, 400004)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_another_keys_request_is_not_told_to_exist(keyed: FastAPI) -> None:
    async with in_process(keyed, token="secret-a") as ann, in_process(keyed, token="secret-b") as bob:
        request_id = (await ann.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
        hidden = [
            await bob.get(f"/v1/requests/{request_id}/status"),
            await bob.get(f"/v1/requests/{request_id}/result"),
            await bob.post(f"/v1/requests/{request_id}/cancel?force=true"),
        ]
        unknown = await bob.get("/v1/requests/0000/status")
        assert (await ann.get(f"/v1/requests/{request_id}/status")).json()["status"] == "in_queue"
    for answer in hidden:
        assert check(answer, 404, 404001) == unknown.json()


async def test_no_route_serves_another_keys_request(keyed: FastAPI) -> None:
    walked = set()
    async with in_process(keyed, token="secret-a") as ann, in_process(keyed, token="secret-b") as bob:
        request_id = (await ann.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
        for route in iter_route_contexts(keyed.routes):
            for method in route.methods if "{request_id}" in (route.path or "") else ():
                path = (route.path or "").replace("{request_id}", request_id)
                assert (await bob.request(method, path)).status_code == 404, (method, path)
                walked.add((method, path.rpartition("/")[2]))
        assert (await ann.get(f"/v1/requests/{request_id}/status")).json()["status"] == "in_queue"
    assert {("GET", "events"), ("GET", "stream"), ("DELETE", request_id), ("PUT", "cancel")} <= walked


@pytest.mark.parametrize("request_id", ["0" * 32, "x", "a.b", "%00", "é", "y" * 200])
async def test_unknown_request(http: httpx.AsyncClient, request_id: str) -> None:
    check(await http.get(f"/v1/requests/{request_id}/status"), 404, 404001)
    check(await http.get(f"/v1/requests/{request_id}/result"), 404, 404001)
    check(await http.post(f"/v1/requests/{request_id}/cancel"), 404, 404001)


async def test_request_that_redis_lost_is_told_so(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    lost = (await http.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
    now = int(time.time() * 1000)
    hands.client.zadd("zturbo:outages", {f"{now - 1000} {now + 1000}": now + 1000})
    hands.client.delete(f"zturbo:req:{lost}")
    answer = await http.get(f"/v1/requests/{lost}/status")
    assert "Submit it again" in check(answer, 404, 404001)["message"]
    answer = await http.get(f"/v1/requests/{'0' * 32}/status")
    assert "Submit it again" not in check(answer, 404, 404001)["message"]


async def test_unknown_model(http: httpx.AsyncClient) -> None:
    check(await http.post("/v1/models/nobody/nothing", json={}), 404, 400001)


async def test_body_of_very_many_values(http: httpx.AsyncClient) -> None:
    for body in (b"[" + b"0," * 30_000 + b"0]", b'{"x": [' + b"{}," * 30_000 + b"0]}"):
        answer = await http.post(SUBMIT, content=body)
        assert "25000 values" in check(answer, 422, 422001)["message"]
    parts = {"prompt": "a fox", "loras": "[" + "0," * 15_000 + "0]", "num_inference_steps": "0," * 15_000}
    answer = await http.post("/v1/images/edits", data=parts, files={"image": PNG})
    assert "25000 values" in check(answer, 422, 422001)["message"]
    long = DOCUMENTED_INPUT | {"prompt": ",[{" * 6_000}
    assert (await http.post(SUBMIT, json=long)).status_code == 200


async def test_body_that_does_not_arrive(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.http.body.BODY_SECONDS", 0.05)

    async def stalled(begin: bytes) -> AsyncIterator[bytes]:
        yield begin
        await anyio.sleep(30)

    check(await http.post(SUBMIT, content=stalled(b"{")), 408, 408001)
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    check(await http.post("/v1/files", content=stalled(b"--x\r\n"), headers=multipart), 408, 408001)


async def test_body_too_large(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_body_bytes": 1000}))
    body = b'{"prompt": "' + b"x" * 1000 + b'"}'

    async def in_chunks() -> AsyncIterator[bytes]:
        yield body

    async with in_process(app) as http:
        for content in (body, in_chunks()):
            answer = await http.post(SUBMIT, content=content)
            assert "1000 bytes" in check(answer, 413, 413001)["message"]
        for path, call in EVERY_SUBMIT.items():
            large = {"files": {"image": bytes(ENVELOPE_BYTES)}} if "files" in call else {"content": body}
            check(await http.post(path, **call | large), 413, 413001)
    await app.state.requests.close()


async def test_bad_input(http: httpx.AsyncClient) -> None:
    body = check(await http.post(SUBMIT, json={}), 422, 422001)
    assert len(body["detail"]) == 3


async def test_full_queue_tells_when_to_come_back(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_queue": 1}))
    async with in_process(app) as http:
        await http.post(SUBMIT, json=DOCUMENTED_INPUT)
        for path, call in EVERY_SUBMIT.items():
            answer = await http.post(path, **call)
            check(answer, 429, 429001)
            assert int(answer.headers["retry-after"]) >= 1
    await app.state.requests.close()


async def test_fault_of_our_own_is_told_with_an_id_that_the_log_has(
    app: FastAPI, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(request_id: str) -> None:
        raise RuntimeError("the secret of the house")

    app.state.requests.get = broken
    answer = await http.get("/v1/requests/abc/status")

    message = check(answer, 500, 500001)["message"]
    assert "secret of the house" not in answer.text
    call_id = message.rstrip(".").split()[-1]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert call_id in record.getMessage()
    assert record.exc_info


async def test_redis_away_is_a_503_to_be_tried_again(redis_server: RedisServer, settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"redis_url": redis_server.url}))
    async with in_process(app) as http:
        request_id = (await http.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
        redis_server.kill()
        for answer in (
            await http.post(SUBMIT, json=DOCUMENTED_INPUT),
            await http.get(f"/v1/requests/{request_id}/status"),
        ):
            check(answer, 503, 503001)
            assert int(answer.headers["retry-after"]) >= 1
        redis_server.start()
        assert (await http.get(f"/v1/requests/{request_id}/status")).json()["status"] == "in_queue"
    await app.state.requests.close()


async def test_full_disk_is_a_503_to_be_tried_again(app: FastAPI, http: httpx.AsyncClient) -> None:
    async def full(*_: object) -> None:
        raise StorageError("The request could not be kept: No space left on device.")

    app.state.requests.submit = full
    body = check(await http.post(SUBMIT, json=DOCUMENTED_INPUT), 503, 503001)
    assert body["message"] == "The request could not be kept: No space left on device."


@pytest.mark.parametrize("path", ["/v2", "/v1/requests/x/y", "/v1/"])
async def test_unknown_route(http: httpx.AsyncClient, path: str) -> None:
    check(await http.get(httpx.URL("http://localhost:8000").copy_with(path=path)), 404, 404002)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", SUBMIT, "GET, HEAD, POST"),
        ("PATCH", "/v1/requests/x", "DELETE, GET"),
        ("POST", "/v1/requests/x/status", "GET"),
        ("GET", "/v1/requests/x/cancel", "POST"),
        ("PUT", "/healthz", "GET, HEAD"),
    ],
)
async def test_wrong_method(http: httpx.AsyncClient, method: str, path: str, allowed: str) -> None:
    answer = await http.request(method, path)
    check(answer, 405, 405001)
    assert answer.headers["allow"] == allowed


async def test_unknown_file(http: httpx.AsyncClient) -> None:
    check(await http.get(f"/v1/files/{'0' * 32}/image.png"), 404, 404002)


WRONG = (
    True,
    1.5,
    "",
    "x" * 30_000,
    [],
    {},
    [1],
    ["x"] * 9,
    -1,
    10**30,
    [{"path": "", "scale": 9}],
    [{"path": "{"}],
    {"width": "x"},
)


@pytest.mark.parametrize(
    "path",
    [
        *(SUBMIT, "/fal-ai/z-image/turbo/controlnet/lora", "/v1/preprocess", "/v1/expand"),
        *("/v1/images/generations", "/hf/tongyi-mai/z-image/turbo"),
    ],
)
async def test_every_fault_is_told_in_our_own_words(http: httpx.AsyncClient, path: str) -> None:
    fields = (await http.get(SUBMIT)).json()["input_schema"]["properties"]
    for value in WRONG:
        answer = await http.post(path, json=dict.fromkeys(fields, value))
        assert answer.status_code == 422
        for fault in answer.json()["detail"]:
            assert not re.search("Input|should|String|List|valid", fault["msg"]), fault


async def test_query_has_the_same_voice(http: httpx.AsyncClient) -> None:
    faults = (await http.get("/v1/models?limit=0&offset=x")).json()["detail"]
    assert [fault["msg"] for fault in faults] == ["must be at least 1", "must be an integer"]
    assert (await http.post(f"{SUBMIT}?wait=x", json={})).json()["detail"][0]["msg"] == "must be a number"
