"""The supervisor sees a worker die at once, and says so; nobody waits for its lease."""

import json

import anyio
import pytest
import redis

from worker.queue.registry import Registry, WorkerInfo
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue

pytestmark = pytest.mark.anyio

Sides = tuple[RequestStore, WorkQueue]
TURN_SECONDS = 0.001


async def held_by(sides: Sides, request_id: str, worker_id: str) -> None:
    requests, work_queue = sides
    await requests.submit(request_id, "model", {}, "local", [])
    taken = work_queue.next("io", f"token-{request_id}", worker_id)
    assert taken is not None


async def reap(work_queue: WorkQueue) -> tuple[int, int]:
    await anyio.sleep(2 * TURN_SECONDS)
    reaped = work_queue.reap(TURN_SECONDS)
    assert reaped is not None
    return reaped.handed_back, reaped.failed


async def test_requests_of_a_dead_worker_are_handed_back_at_the_next_turn(
    sides: Sides, work_queue: WorkQueue
) -> None:
    await held_by(sides, "a", "io-host-77-x")
    assert await reap(work_queue) == (0, 0)
    assert sides[1].declare_dead("io", "io-host-77-") == 1
    assert await reap(work_queue) == (1, 0)
    again = work_queue.next("io", "another", "io-host-78-y")
    assert again is not None
    assert (again.id, again.attempt) == ("a", 2)


async def test_requests_of_the_living_stay_where_they_are(sides: Sides, work_queue: WorkQueue) -> None:
    await held_by(sides, "a", "io-host-77-x")
    await held_by(sides, "b", "io-host-771-x")
    assert sides[1].declare_dead("io", "io-host-77-") == 1
    assert await reap(work_queue) == (1, 0)
    assert work_queue.beat("b", "token-b") == "held"


async def test_workers_of_a_host_whose_name_goes_on_are_not_taken_for_dead(
    sides: Sides, work_queue: WorkQueue, client: redis.Redis
) -> None:
    living = "io-box-7-99-x"
    await held_by(sides, "a", living)
    Registry(client, 30).say(WorkerInfo(living, "io", "busy"))
    assert sides[1].declare_dead("io", "io-box-7-") == 0
    assert await reap(work_queue) == (0, 0)
    assert [worker.id for worker in (await sides[0].stats()).workers] == [living]


async def test_dead_worker_is_no_longer_among_the_workers(sides: Sides, client: redis.Redis) -> None:
    requests, work_queue = sides
    for worker_id in ("gpu-host-77-x", "gpu-host-78-x"):
        Registry(client, 30).say(WorkerInfo(worker_id, "gpu", "ready"))
    work_queue.declare_dead("gpu", "gpu-host-77-")
    assert [worker.id for worker in (await requests.stats()).workers] == ["gpu-host-78-x"]


async def test_request_that_killed_a_worker_at_each_attempt_is_failed(
    sides: Sides, work_queue: WorkQueue
) -> None:
    requests, _ = sides
    await held_by(sides, "a", "io-host-77-x")
    sides[1].declare_dead("io", "io-host-77-")
    assert await reap(work_queue) == (1, 0)
    for pid, outcome in ((78, (1, 0)), (79, (0, 1))):
        assert work_queue.next("io", f"token-{pid}", f"io-host-{pid}-x") is not None
        sides[1].declare_dead("io", f"io-host-{pid}-")
        assert await reap(work_queue) == outcome
    failed = await requests.get("a")
    assert failed is not None
    assert failed.error is not None
    assert failed.error["type"] == "worker_crashed"


async def test_what_a_newer_worker_says_besides_is_skipped(
    requests: RequestStore, client: redis.Redis
) -> None:
    Registry(client, 30).say(WorkerInfo("gpu-1", "gpu", "ready"))
    said = json.loads(client.get("zturbo:worker:gpu-1"))  # type: ignore[arg-type]
    client.set("zturbo:worker:gpu-1", json.dumps(said | {"of_a_newer_version": 1}))
    assert (await requests.stats()).workers == [WorkerInfo("gpu-1", "gpu", "ready")]


async def test_dead_worker_is_shown_no_more_and_the_others_are(sides: Sides, client: redis.Redis) -> None:
    requests, work_queue = sides
    for worker_id in ("io-host-77-x", "io-host-78-y"):
        Registry(client, hold_seconds=60).say(WorkerInfo(worker_id, "io", "busy"))
    work_queue.declare_dead("io", "io-host-77-")
    assert [worker.id for worker in (await requests.stats()).workers] == ["io-host-78-y"]
    assert client.exists("zturbo:worker:io-host-77-x") == 0
    assert client.zrange("zturbo:workers:io", 0, -1) == ["io-host-78-y"]


async def test_what_is_done_once_in_a_while_is_done_by_one_process(work_queue: WorkQueue) -> None:
    assert work_queue.has_turn("sweep", 60)
    assert not work_queue.has_turn("sweep", 60)
    assert work_queue.has_turn("another", 60)
