"""POST /v1/expand: a prompt rewritten before the run."""

import asyncio

import httpx
import pytest
from anyio.to_thread import run_sync

from tests.support.http_api import WorkerHands
from tests.support.processes import wait_for

pytestmark = pytest.mark.anyio

ASKED = {"prompt": "a fox", "seed": 3}


async def waiting(hands: WorkerHands) -> None:
    await run_sync(wait_for, lambda: hands.client.zcard("zturbo:line"))


async def test_answer_is_what_the_worker_made_of_it(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    call = asyncio.create_task(http.post("/v1/expand", json=ASKED))
    await waiting(hands)
    assert (await http.get("/v1/requests")).json()["requests"] == []
    record = hands.succeed({"expanded_prompt": "a red fox in deep snow", "warning": None})
    answer = await call
    assert (answer.status_code, answer.json()) == (200, {"expanded_prompt": "a red fox in deep snow"})
    assert record.input == ASKED
    assert hands.work_queue.get(record.id) is None


async def test_prompt_that_is_best_left_alone_comes_with_the_reason(
    http: httpx.AsyncClient, hands: WorkerHands
) -> None:
    call = asyncio.create_task(http.post("/v1/expand", json={"prompt": "a fox"}))
    await waiting(hands)
    hands.succeed({"expanded_prompt": None, "warning": "The prompt was used as it is: …."})
    assert (await call).json() == {"warning": "The prompt was used as it is: …."}


async def test_failure_is_told_with_its_reason(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    call = asyncio.create_task(http.post("/v1/expand", json=ASKED))
    await waiting(hands)
    hands.fail("out_of_memory", "The text encoder does not fit the memory of cuda.")
    answer = await call
    assert answer.status_code == 503
    assert answer.json()["error_message"] == "The text encoder does not fit the memory of cuda."


async def test_nobody_who_comes_in_time_is_told_and_nothing_stays_in_line(
    http: httpx.AsyncClient, hands: WorkerHands
) -> None:
    answer = await http.post("/v1/expand?wait=0.1", json=ASKED)
    assert answer.status_code == 503
    assert "within 0.1 s" in answer.json()["error_message"]
    assert hands.client.zcard("zturbo:line") == 0


async def test_every_fault_is_listed(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/expand", json={"seed": 2.5})
    assert answer.status_code == 422
    assert {fault["loc"][-1] for fault in answer.json()["detail"]} == {"prompt", "seed"}
