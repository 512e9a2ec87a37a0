"""Alive, ready, and how busy."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.config import Settings
from app.main import create_app
from tests.support.http_api import WorkerHands, in_process
from tests.support.redis_server import RedisServer
from worker.queue.registry import WorkerInfo, WorkerState

pytestmark = pytest.mark.anyio

IO = WorkerInfo("io-1", "io", "ready")
GPU = WorkerInfo("gpu-1", "gpu", "ready", model="demo", device="cpu")


@pytest.fixture
async def without_redis(settings: Settings, redis_server: RedisServer) -> AsyncIterator[FastAPI]:
    redis_server.kill()
    app = create_app(settings.model_copy(update={"redis_url": redis_server.url}))
    yield app
    await app.state.requests.close()


async def test_process_is_alive_whatever_else_is(without_redis: FastAPI) -> None:
    async with in_process(without_redis) as http:
        answer = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_with_both_kinds_of_worker(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    hands.register(IO, GPU)
    answer = await http.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["ready"] is True
    assert body["reasons"] == []
    assert body["workers"][1]["model"] == "demo"


async def test_busy_worker_is_ready(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    hands.register(IO, WorkerInfo("gpu-1", "gpu", "busy"))
    assert (await http.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("state", "note"),
    [
        ("asleep", "The model is asleep; the next request wakes it."),
        ("waking", "The model is being loaded."),
    ],
)
async def test_worker_that_sleeps_is_ready_and_says_so(
    http: httpx.AsyncClient, hands: WorkerHands, state: WorkerState, note: str
) -> None:
    hands.register(IO, WorkerInfo("gpu-1", "gpu", state, detail="No request came."))
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["note"]) == (200, note)
    assert answer.json()["workers"][1] == {"id": "gpu-1", "kind": "gpu", "state": state}
    hands.register(GPU)
    assert "note" not in (await http.get("/readyz")).json()


@pytest.mark.parametrize(
    ("workers", "reasons"),
    [
        ([], ["No io worker is running", "No gpu worker is running"]),
        ([IO], ["No gpu worker is running"]),
        ([GPU], ["No io worker is running"]),
        ([IO, WorkerInfo("gpu-1", "gpu", "starting")], ["A gpu worker is loading its model"]),
        (
            [IO, WorkerInfo("gpu-1", "gpu", "setup_failed", detail="No weights; zturbo pull brings them.")],
            ["No gpu worker could be set up: No weights; zturbo pull brings them."],
        ),
    ],
)
async def test_not_ready_tells_every_reason(
    http: httpx.AsyncClient, hands: WorkerHands, workers: list[WorkerInfo], reasons: list[str]
) -> None:
    hands.register(*workers)
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    body = answer.json()
    assert body["ready"] is False
    assert len(body["reasons"]) == len(reasons)
    assert all(told.startswith(reason) for told, reason in zip(body["reasons"], reasons, strict=True))
    assert (body["error_code"], body["message"]) == (503001, " ".join(body["reasons"]))


async def test_not_ready_without_redis(without_redis: FastAPI) -> None:
    async with in_process(without_redis) as http:
        answer = await http.get("/readyz")
        metrics = (await http.get("/metrics")).text
    assert answer.status_code == 503
    assert "Redis" in answer.json()["reasons"][0]
    assert "zturbo_redis_up 0.0\n" in metrics
