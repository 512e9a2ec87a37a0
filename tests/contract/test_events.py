"""GET /v1/requests/{id}/events: a request as it goes, over a real socket."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from app.config import Settings
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, served

pytestmark = pytest.mark.anyio

OUTPUT = {"image": {"file_id": "0" * 32, "name": "image.png"}, "seed": 7}
SECONDS = 10.0


@pytest.fixture
def base(app: FastAPI, settings: Settings) -> Iterator[str]:
    with served(app, settings) as base:
        yield base


@pytest.fixture
async def calls(base: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base, timeout=SECONDS) as client:
        yield client


async def submit(calls: httpx.AsyncClient) -> str:
    request_id: str = (await calls.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
    return request_id


async def events(calls: httpx.AsyncClient, request_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Each event's name and data."""
    async with calls.stream("GET", f"/v1/requests/{request_id}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


async def test_request_is_told_from_the_line_to_its_result(
    calls: httpx.AsyncClient, hands: WorkerHands
) -> None:
    request_id = await submit(calls)
    stream = events(calls, request_id)
    with anyio.fail_after(SECONDS):
        name, status = await anext(stream)
        assert (name, status["status"], status["queue_position"]) == ("status", "in_queue", 0)
        assert status == status | (await calls.get(f"/v1/requests/{request_id}/status")).json()

        running, token = hands.generate()
        _, status = await anext(stream)
        assert (status["status"], status.get("step"), "queue_position" in status) == (
            "in_progress",
            None,
            False,
        )
        hands.work_queue.beat(running.id, token, 2, 8, seconds_left=600)
        _, status = await anext(stream)
        assert (status["step"], status["total_steps"], status["progress"]) == (2, 8, 0.25)
        assert 500 < status["eta_seconds"] <= 600
        for route in ("status", "result"):
            later = (await calls.get(f"/v1/requests/{request_id}/{route}")).json()
            assert 500 < later["eta_seconds"] <= status["eta_seconds"]

        hands.end(running.id, token, OUTPUT)
        rest = [event async for event in stream]
    assert [name for name, _ in rest] == ["status", "result"]
    assert rest[0][1]["status"] == "completed"
    assert rest[1][1] == (await calls.get(f"/v1/requests/{request_id}/result")).json()


async def test_finished_request_is_told_at_once(calls: httpx.AsyncClient, hands: WorkerHands) -> None:
    request_id = await submit(calls)
    hands.fail("fetch_failed", "image_url: nobody is there.")
    told = [event async for event in events(calls, request_id)]
    assert [(name, body["status"]) for name, body in told] == [("status", "completed"), ("result", "failed")]
    assert told[1][1]["error"]["type"] == "fetch_failed"


async def test_cancel_ends_the_stream(calls: httpx.AsyncClient) -> None:
    request_id = await submit(calls)
    stream = events(calls, request_id)
    with anyio.fail_after(SECONDS):
        await anext(stream)
        await calls.post(f"/v1/requests/{request_id}/cancel")
        assert [(name, body["status"]) async for name, body in stream] == [
            ("status", "cancelled"),
            ("result", "cancelled"),
        ]


async def test_line_that_moves_is_told_to_all_who_stand_in_it(
    calls: httpx.AsyncClient, hands: WorkerHands
) -> None:
    ids = [await submit(calls) for _ in range(3)]
    streams = [events(calls, request_id) for request_id in ids[1:]]
    with anyio.fail_after(SECONDS):
        assert [(await anext(stream))[1]["queue_position"] for stream in streams] == [1, 2]
        hands.generate()
        assert [(await anext(stream))[1]["queue_position"] for stream in streams] == [0, 1]
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]


async def test_preview_is_made_only_while_somebody_looks(
    calls: httpx.AsyncClient, hands: WorkerHands
) -> None:
    request_id = await submit(calls)
    running, token = hands.generate()
    assert not hands.work_queue.is_watched(request_id)
    stream = events(calls, request_id)
    with anyio.fail_after(SECONDS):
        await anext(stream)
        assert hands.work_queue.is_watched(request_id)
        hands.work_queue.beat(running.id, token, 1, 8, b"\xff\xd8 a picture")
        _, status = await anext(stream)
        assert status["preview"] == "data:image/jpeg;base64,/9ggYSBwaWN0dXJl"
    await stream.aclose()  # type: ignore[attr-defined]


async def test_stream_without_news_is_kept_alive_by_comments(
    calls: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    request_id = await submit(calls)
    with anyio.fail_after(SECONDS):
        async with calls.stream("GET", f"/v1/requests/{request_id}/events") as answer:
            lines = answer.aiter_lines()
            while await anext(lines) != ": ping":
                pass


async def test_unknown_request_is_a_404(calls: httpx.AsyncClient) -> None:
    assert (await calls.get("/v1/requests/nobody/events")).status_code == 404


async def test_deleted_request_ends_the_stream(calls: httpx.AsyncClient, hands: WorkerHands) -> None:
    request_id = await submit(calls)
    stream = events(calls, request_id)
    with anyio.fail_after(SECONDS):
        await anext(stream)
        hands.client.delete(f"zturbo:req:{request_id}")
        hands.client.publish("zturbo:changed", request_id)
        assert [event async for event in stream] == []
