"""Requests whose worker fell silent: who gets them, and when they are given up."""

import threading
from collections.abc import Callable

import pytest
import redis

from worker.errors import LeaseLost
from worker.queue.record import Record
from worker.queue.requests import RequestStore
from worker.queue.scripts import Reaped
from worker.queue.work_queue import WorkQueue

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 30
"""Of every test here: none waits for its end, so that a busy machine changes nothing."""

Reap = Callable[[], Reaped]


@pytest.fixture
async def request_id(requests: RequestStore) -> str:
    await requests.submit("a", "model", {}, "local", [])
    return "a"


@pytest.fixture
def reap(work_queue: WorkQueue, client: redis.Redis) -> Reap:
    def reap() -> Reaped:
        client.delete("zturbo:turn")
        reaped = work_queue.reap(60)
        assert reaped is not None
        return reaped

    return reap


def milliseconds(client: redis.Redis) -> int:
    """Redis's clock."""
    seconds, micros = client.time()  # type: ignore[misc]
    return int(seconds * 1000 + micros // 1000)


def run_out(client: redis.Redis, request_id: str) -> None:
    """The end of its lease is over."""
    assert client.zadd("zturbo:leases", {request_id: milliseconds(client) - 1}, xx=True, ch=True) == 1


def outage(client: redis.Redis) -> None:
    """Nobody reaped for two leases."""
    client.set("zturbo:reaped", milliseconds(client) - 2 * LEASE_SECONDS * 1000)


def take(work_queue: WorkQueue, queue: str, token: str, worker: str = "dead") -> Record:
    record = work_queue.next(queue, token, worker)  # type: ignore[arg-type]
    assert record is not None
    return record


def to_gpu(work_queue: WorkQueue, request_id: str) -> None:
    take(work_queue, "io", "prepare")
    work_queue.advance(request_id, "prepare", "generate", {})


async def test_request_of_a_silent_worker_is_first_again(
    requests: RequestStore, work_queue: WorkQueue, request_id: str, client: redis.Redis, reap: Reap
) -> None:
    to_gpu(work_queue, request_id)
    await requests.submit("b", "model", {}, "local", [])
    take(work_queue, "gpu", "t1")
    assert client.zrank("zturbo:line", request_id) is None
    assert reap()[:2] == (0, 0)
    run_out(client, request_id)
    assert reap()[:2] == (1, 0)
    record = await requests.get(request_id)
    assert record is not None
    assert (record.state, record.position) == ("in_queue", 0)
    again = take(work_queue, "gpu", "t2")
    assert (again.id, again.attempt) == (request_id, 2)
    with pytest.raises(LeaseLost):
        work_queue.advance(request_id, "t1", "finish", {})


async def test_reaping_rings_for_what_was_handed_back(
    work_queue: WorkQueue, request_id: str, client: redis.Redis, reap: Reap
) -> None:
    take(work_queue, "io", "t1")
    client.delete("rq:queue:zturbo-io")
    run_out(client, request_id)
    assert reap().bells == {"io": 1, "gpu": 0}


async def test_beating_worker_keeps_its_request(
    work_queue: WorkQueue, request_id: str, client: redis.Redis, reap: Reap
) -> None:
    take(work_queue, "io", "t1")
    run_out(client, request_id)
    assert work_queue.beat(request_id, "t1") == "held"
    assert reap()[:2] == (0, 0)


async def test_request_whose_workers_all_fell_silent_fails_and_says_so(
    requests: RequestStore, work_queue: WorkQueue, request_id: str, client: redis.Redis, reap: Reap
) -> None:
    for attempt in (1, 2, 3):
        assert take(work_queue, "io", f"t{attempt}").attempt == attempt
        run_out(client, request_id)
        reap()
    record = await requests.get(request_id)
    assert record is not None
    assert record.state == "failed"
    assert record.error is not None
    assert record.error["type"] == "worker_crashed"
    assert "3 times" in record.error["message"]
    assert "prepare" in record.error["message"]


async def test_nothing_is_taken_away_right_after_an_outage(
    work_queue: WorkQueue, request_id: str, client: redis.Redis, reap: Reap
) -> None:
    take(work_queue, "io", "t1")
    outage(client)
    run_out(client, request_id)
    assert reap()[:2] == (0, 0)
    assert reap()[:2] == (0, 0)
    assert work_queue.beat(request_id, "t1") == "held"


async def test_request_is_taken_away_once_the_grace_after_an_outage_is_over(
    work_queue: WorkQueue, request_id: str, client: redis.Redis, reap: Reap
) -> None:
    take(work_queue, "io", "t1")
    outage(client)
    run_out(client, request_id)
    now = milliseconds(client)
    assert reap()[:2] == (0, 0)
    assert int(client.get("zturbo:quiet")) >= now + LEASE_SECONDS * 1000  # type: ignore[arg-type]
    client.set("zturbo:quiet", now)
    assert reap()[:2] == (1, 0)


async def test_one_process_reaps_in_a_turn(work_queue: WorkQueue) -> None:
    assert work_queue.reap(60) is not None
    assert work_queue.reap(60) is None


@pytest.mark.parametrize("round", range(20))
async def test_cancel_against_finish_has_one_winner(
    requests: RequestStore, work_queue: WorkQueue, request_id: str, round: int
) -> None:
    to_gpu(work_queue, request_id)
    take(work_queue, "gpu", "t1")
    work_queue.advance(request_id, "t1", "finish", {})
    take(work_queue, "io", "t2")
    finished = threading.Event()

    def finish() -> None:
        try:
            work_queue.finish(request_id, "t2", {"image": {}})
        except LeaseLost:
            return
        finished.set()

    thread = threading.Thread(target=finish)
    thread.start()
    cancelled = await requests.cancel(request_id, force=True)
    thread.join()
    record = await requests.get(request_id)
    assert record is not None
    assert cancelled is not None
    if finished.is_set():
        assert (record.state, cancelled.outcome) == ("succeeded", "not_cancellable")
    else:
        assert (record.state, record.output, cancelled.outcome) == ("cancelled", None, "cancelled")
