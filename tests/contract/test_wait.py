"""Holding a submit until the request is done: `?wait=` and `Prefer: wait=`."""

import asyncio
import json
import logging
import socket
from typing import Any

import anyio
import httpx
import pytest

from app.config import Settings
from app.http.access import CLIENT_LEFT
from app.main import create_app
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, picture_uri, served
from tests.support.processes import wait_for
from worker.queue.record import Record
from worker.queue.registry import WorkerInfo
from worker.queue.requests import RequestStore

pytestmark = pytest.mark.anyio

OUTPUT = {"image": {"file_id": "0" * 32, "name": "image.png"}, "seed": 7}


async def work(hands: WorkerHands, requests: RequestStore) -> None:
    """A worker that takes the first request there is."""
    while True:
        if (await requests.stats()).in_line:
            break
        await anyio.sleep(0.01)
    await anyio.to_thread.run_sync(hands.succeed, OUTPUT)


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        ({"params": {"wait": "10"}}, 10),
        ({"headers": {"Prefer": "respond-async, wait=10"}}, 10),
        ({"headers": {"Prefer": "wait"}}, 60),
        ({"headers": {"Prefer": "wait=301"}}, 300),
    ],
)
async def test_held_submit_answers_with_the_result(
    http: httpx.AsyncClient,
    hands: WorkerHands,
    requests: RequestStore,
    how: dict[str, dict[str, str]],
    seconds: int,
) -> None:
    answers: list[httpx.Response] = []

    async def submit() -> None:
        answers.append(await http.post(SUBMIT, json=DOCUMENTED_INPUT, **how))  # type: ignore[arg-type]

    with anyio.fail_after(8):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit)
            tasks.start_soon(work, hands, requests)

    (answer,) = answers
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == f"wait={seconds}"
    body = answer.json()
    assert (body["status"], body["seed"]) == ("succeeded", 7)
    result = (await http.get(body["result_url"])).json()
    assert body == result | {
        "status_url": body["status_url"],
        "result_url": body["result_url"],
        "cancel_url": body["cancel_url"],
    }


@pytest.mark.parametrize("seconds", ["0.1", "1e-9"])
async def test_time_that_is_up_answers_with_the_state(http: httpx.AsyncClient, seconds: str) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT, params={"wait": seconds})
    assert answer.status_code == 200
    assert answer.json()["status"] == "in_queue"
    assert "output" not in answer.json()


async def test_without_a_wait_nothing_is_held(http: httpx.AsyncClient) -> None:
    for call in ({}, {"params": {"wait": "0"}}, {"headers": {"Prefer": "return=minimal"}}):
        answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT, **call)  # type: ignore[arg-type]
        assert "status" not in answer.json()
        assert "preference-applied" not in answer.headers


@pytest.mark.parametrize("wait", ["-1", "301", "soon", "nan"])
async def test_faulty_wait_is_a_422(http: httpx.AsyncClient, wait: str) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT, params={"wait": wait})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "wait"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a call that is held look for a gpu worker after a twentieth of a second."""
    monkeypatch.setattr("app.submission.HELD_SECONDS", 0.05)


LONG = pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fal/run/fal-ai/z-image/turbo/controlnet/lora", DOCUMENTED_INPUT),
        ("/v1/images/generations", {"prompt": "a fox", "response_format": "url"}),
        ("/hf/tongyi-mai/z-image/turbo", {"inputs": "a fox"}),
        ("/v1/expand", {"prompt": "a fox"}),
        ("/v1/preprocess", {"image_url": picture_uri(), "preprocess": "depth"}),
    ],
)


@LONG
@pytest.mark.usefixtures("impatient")
async def test_call_that_names_no_time_is_held_as_long_as_there_is_a_gpu_worker(
    http: httpx.AsyncClient, hands: WorkerHands, path: str, body: dict[str, Any]
) -> None:
    hands.register(WorkerInfo("gpu-1", "gpu", "busy"))
    call = asyncio.create_task(http.post(path, json=body))
    with anyio.fail_after(8):
        # It waits in line behind a picture, and then is made itself.
        await anyio.to_thread.run_sync(wait_for, lambda: hands.client.zcard("zturbo:line"))
        await anyio.sleep(0.2)
        running, token = await anyio.to_thread.run_sync(hands.generate)
        await anyio.sleep(0.2)
        assert not call.done(), (await call).text
        hands.work_queue.fail(running.id, token, "internal_error", "It was done, but came to nothing.")
        answer = await call
    assert "It was done, but came to nothing." in answer.text


@LONG
@pytest.mark.usefixtures("impatient")
async def test_call_that_names_no_time_is_given_up_where_there_is_no_gpu_worker(
    http: httpx.AsyncClient, hands: WorkerHands, path: str, body: dict[str, Any]
) -> None:
    with anyio.fail_after(8):
        answer = await http.post(path, json=body)
    assert answer.status_code in (503, 504)
    # A picture that can be fetched later goes on.
    assert hands.client.zcard("zturbo:line") == ("/result has it when" in answer.text)


async def test_time_to_begin_that_is_up_stops_no_picture_that_has_begun(
    http: httpx.AsyncClient, hands: WorkerHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: asyncio.Future[tuple[Record, str]] = asyncio.Future()
    cancel = RequestStore.cancel

    async def begin_before(store: RequestStore, request_id: str, force: bool = False) -> Any:
        """A worker was quicker than who gives up."""
        begun.set_result(await anyio.to_thread.run_sync(hands.generate))
        return await cancel(store, request_id, force)

    monkeypatch.setattr(RequestStore, "cancel", begin_before)
    path = "/fal/run/fal-ai/z-image/turbo/controlnet/lora"
    call = asyncio.create_task(http.post(path, json=DOCUMENTED_INPUT, headers={"x-fal-request-timeout": "0"}))
    with anyio.fail_after(8):
        running, token = await begun
        await anyio.to_thread.run_sync(
            hands.work_queue.fail, running.id, token, "internal_error", "It came to nothing."
        )
        assert "It came to nothing." in (await call).text


@pytest.mark.parametrize(
    ("path", "key", "state"),
    [
        (f"{SUBMIT}?wait=60", "", "cancelled"),
        ("/fal/run/fal-ai/z-image/turbo/controlnet/lora", "", "cancelled"),
        ("/v1/images/generations", "", "cancelled"),
        ("/hf/tongyi-mai/z-image/turbo", "", "cancelled"),
        # By its key the same call gets the same request again.
        (f"{SUBMIT}?wait=60", "Idempotency-Key: a\r\n", "in_queue"),
    ],
)
def test_caller_who_hangs_up_cancels_what_he_cannot_come_back_for(
    settings: Settings,
    hands: WorkerHands,
    caplog: pytest.LogCaptureFixture,
    path: str,
    key: str,
    state: str,
) -> None:
    caplog.set_level(logging.INFO, "zturbo.access")
    body = json.dumps(DOCUMENTED_INPUT | {"inputs": "a fox"})
    with served(create_app(settings), settings) as base:
        url = httpx.URL(base)
        with socket.create_connection((url.host, url.port or 80)) as caller:
            head = f"POST {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n{key}Content-Length: {len(body)}"
            caller.sendall(f"{head}\r\n\r\n{body}".encode())
            wait_for(lambda: hands.client.zcard("zturbo:line"))
        wait_for(lambda: CLIENT_LEFT in [getattr(each, "status", None) for each in caplog.records])
        (request,) = httpx.get(f"{base}/v1/requests").json()["requests"]
        assert request["status"] == state
