"""Requests whose worker fell silent: who gets them, and when they are given up."""

import threading
import time

import pytest
import redis

from worker.config import WorkerSettings
from worker.errors import LeaseLost
from worker.records import Reaped, Record, Records
from worker.registry import Registry, WorkerInfo
from worker.requests import Requests

pytestmark = pytest.mark.anyio

LEASE = 0.2
TURN = 0.001


@pytest.fixture
def settings(settings: WorkerSettings) -> WorkerSettings:
    return settings.model_copy(update={"lease_seconds": LEASE})


@pytest.fixture
async def request_id(requests: Requests) -> str:
    await requests.submit("a", "model", {}, "local", [])
    return "a"


def reap_until(records: Records, seconds: float) -> Reaped:
    """As the reconcilers do: often, so that no gap is seen. The sum of what was done."""
    handed_back = failed = 0
    bells = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reaped = records.reap(TURN)
        if reaped:
            handed_back, failed, bells = (
                handed_back + reaped.handed_back,
                failed + reaped.failed,
                reaped.bells,
            )
        time.sleep(0.01)
    return Reaped(handed_back, failed, bells)


def take(records: Records, queue: str, token: str, worker: str = "dead") -> Record:
    record = records.next(queue, token, worker)  # type: ignore[arg-type]
    assert record is not None
    return record


def to_gpu(records: Records, request_id: str) -> None:
    take(records, "io", "prepare")
    records.advance(request_id, "prepare", "generate", {})


async def test_request_of_a_silent_worker_is_first_again(
    requests: Requests, records: Records, request_id: str
) -> None:
    to_gpu(records, request_id)
    await requests.submit("b", "model", {}, "local", [])
    take(records, "gpu", "t1")
    assert await requests.position(request_id) is None
    assert reap_until(records, 2 * LEASE)[:2] == (1, 0)
    record = await requests.get(request_id)
    assert record is not None
    assert (record.state, record.position) == ("in_queue", 0)
    again = take(records, "gpu", "t2")
    assert (again.id, again.attempt) == (request_id, 2)
    with pytest.raises(LeaseLost):
        records.advance(request_id, "t1", "finish", {})


async def test_reaping_rings_for_what_was_handed_back(
    requests: Requests, records: Records, request_id: str, client: redis.Redis
) -> None:
    take(records, "io", "t1")
    client.delete("rq:queue:zturbo-io")
    assert reap_until(records, 2 * LEASE).bells == {"io": 1, "gpu": 0}


async def test_beating_worker_keeps_its_request(records: Records, request_id: str) -> None:
    take(records, "io", "t1")
    for _ in range(10):
        assert records.beat(request_id, "t1") == "held"
        assert reap_until(records, LEASE / 4)[:2] == (0, 0)


async def test_request_that_two_workers_died_of_fails_and_says_so(
    requests: Requests, records: Records, request_id: str
) -> None:
    for token in ("t1", "t2"):
        take(records, "io", token)
        reap_until(records, 2 * LEASE)
    record = await requests.get(request_id)
    assert record is not None
    assert record.state == "failed"
    assert record.error is not None
    assert record.error["type"] == "worker_crashed"
    assert "2 workers died" in record.error["message"]
    assert "prepare" in record.error["message"]


async def test_request_whose_living_workers_lost_it_fails_after_max_attempts(
    requests: Requests, records: Records, client: redis.Redis, request_id: str
) -> None:
    registry = Registry(client, hold_seconds=60)
    registry.say(WorkerInfo(id="stuck", kind="io", state="busy"))
    for attempt in (1, 2, 3):
        assert take(records, "io", f"t{attempt}", "stuck").attempt == attempt
        reap_until(records, 2 * LEASE)
    record = await requests.get(request_id)
    assert record is not None
    assert record.error is not None
    assert record.error["type"] == "worker_crashed"
    assert "3 times" in record.error["message"]


async def test_nothing_is_taken_away_right_after_an_outage(records: Records, request_id: str) -> None:
    take(records, "io", "t1")
    records.reap(TURN)
    time.sleep(2 * LEASE)  # noqa: ASYNC251 - nobody could beat or reap
    reaped = records.reap(TURN)
    assert reaped is not None
    assert reaped[:2] == (0, 0)
    assert records.beat(request_id, "t1") == "held"
    assert reap_until(records, LEASE * 0.8)[:2] == (0, 0)


async def test_request_is_taken_away_once_the_grace_after_an_outage_is_over(
    records: Records, request_id: str
) -> None:
    take(records, "io", "t1")
    records.reap(TURN)
    time.sleep(2 * LEASE)  # noqa: ASYNC251
    assert reap_until(records, 2 * LEASE)[:2] == (1, 0)


async def test_one_process_reaps_in_a_turn(records: Records) -> None:
    assert records.reap(10) is not None
    assert records.reap(10) is None


@pytest.mark.parametrize("round", range(20))
async def test_cancel_against_finish_has_one_winner(
    requests: Requests, records: Records, request_id: str, round: int
) -> None:
    to_gpu(records, request_id)
    take(records, "gpu", "t1")
    records.advance(request_id, "t1", "finish", {})
    take(records, "io", "t2")
    finished = threading.Event()

    def finish() -> None:
        try:
            records.finish(request_id, "t2", {"image": {}})
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
