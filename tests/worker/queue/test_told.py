"""What the scripts tell beside the record: counters, the pace, changes to whoever listens, what expires."""

from collections.abc import Callable, Iterator

import pytest
import redis

from worker.queue import scripts
from worker.queue.record import Record
from worker.queue.requests import RequestStore
from worker.queue.scripts import Scripts
from worker.queue.work_queue import WorkQueue

pytestmark = pytest.mark.anyio

LEASE_MS = 30_000
SLACK_MS = 5000
"""A busy machine may take so long between two commands."""

Heard = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def heard(client: redis.Redis) -> Iterator[Heard]:
    """Channel and id of everything that was published since the last call."""
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("zturbo:changed", "zturbo:stepped")

        def heard() -> list[tuple[str, str]]:
            client.publish("zturbo:changed", "the end")
            messages: list[tuple[str, str]] = []
            while True:
                if message := pubsub.get_message(timeout=10):
                    if message["data"] == "the end":
                        return messages
                    messages.append((message["channel"].removeprefix("zturbo:"), message["data"]))

        heard()
        yield heard


@pytest.fixture
async def request_id(requests: RequestStore) -> str:
    await requests.submit("a", "model", {}, "local", [])
    return "a"


def take(work_queue: WorkQueue, queue: str, token: str) -> Record:
    record = work_queue.next(queue, token, "worker")  # type: ignore[arg-type]
    assert record is not None
    return record


def to_gpu(work_queue: WorkQueue, request_id: str) -> None:
    take(work_queue, "io", f"prepare-{request_id}")
    work_queue.advance(request_id, f"prepare-{request_id}", "generate", {})


def ago(client: redis.Redis, request_id: str, field: str, ms: int) -> None:
    """Moves a time of the record back."""
    client.hincrby(f"zturbo:req:{request_id}", field, -ms)


def counted(client: redis.Redis, name: str) -> dict[str, int]:
    found = client.hgetall("zturbo:metrics")
    return {key: int(value) for key, value in found.items() if key.startswith(name)}


def reap(work_queue: WorkQueue, client: redis.Redis) -> None:
    client.delete("zturbo:turn")
    assert work_queue.reap(60) is not None


def lose(work_queue: WorkQueue, client: redis.Redis, request_id: str) -> None:
    """Its lease runs out."""
    client.zadd("zturbo:leases", {request_id: 1})
    reap(work_queue, client)


async def test_pace_is_a_moving_average_of_which_the_latest_picture_is_a_fifth(
    requests: RequestStore, work_queue: WorkQueue, client: redis.Redis
) -> None:
    paces = []
    for request_id, took in (("a", 10_000), ("b", 60_000)):
        await requests.submit(request_id, "model", {}, "local", [])
        to_gpu(work_queue, request_id)
        take(work_queue, "gpu", f"generate-{request_id}")
        ago(client, request_id, "taken_at", took)
        work_queue.advance(request_id, f"generate-{request_id}", "finish", {})
        take(work_queue, "io", f"finish-{request_id}")
        paces.append(int(client.get("zturbo:pace")))  # type: ignore[arg-type]
    assert 10_000 <= paces[0] < 10_000 + SLACK_MS
    assert 20_000 <= paces[1] < 20_000 + SLACK_MS


async def test_time_in_the_queue_is_counted_once_and_is_never_negative(
    requests: RequestStore, work_queue: WorkQueue, client: redis.Redis, request_id: str
) -> None:
    to_gpu(work_queue, request_id)
    ago(client, request_id, "created_at", 15_000)
    take(work_queue, "gpu", "t1")
    first = counted(client, "queue_seconds")
    assert first["queue_seconds|30"] == 1
    assert 15_000 <= first["queue_seconds|sum"] < 15_000 + SLACK_MS
    lose(work_queue, client, request_id)
    take(work_queue, "gpu", "t2")
    assert counted(client, "queue_seconds") == first

    await requests.submit("b", "model", {}, "local", [])
    to_gpu(work_queue, "b")
    ago(client, "b", "created_at", -60_000)
    take(work_queue, "gpu", "t3")
    assert counted(client, "queue_seconds") == first | {"queue_seconds|0.1": 1}


async def test_time_of_each_stage_is_counted(
    work_queue: WorkQueue, client: redis.Redis, request_id: str
) -> None:
    to_gpu(work_queue, request_id)
    take(work_queue, "gpu", "t1")
    work_queue.beat(request_id, "t1", 3, 8)
    ago(client, request_id, "taken_at", 15_000)
    work_queue.advance(request_id, "t1", "finish", {})
    assert 15_000 <= counted(client, "stage_seconds")["stage_seconds|generate"] < 15_000 + SLACK_MS
    assert client.hget(f"zturbo:req:{request_id}", "step") == "8", "the beat of the last step came too late"
    assert counted(client, "generate_seconds|model|8|30") == {"generate_seconds|model|8|30": 1}
    assert counted(client, "generate_seconds|model|8|sum").popitem()[1] < 15_000 + SLACK_MS


async def test_what_is_longer_than_every_bound_is_counted_too(
    work_queue: WorkQueue, client: redis.Redis, request_id: str
) -> None:
    to_gpu(work_queue, request_id)
    ago(client, request_id, "created_at", 4_000_000)
    take(work_queue, "gpu", "t1")
    assert counted(client, "queue_seconds|+Inf") == {"queue_seconds|+Inf": 1}


async def test_lost_attempts_are_counted_by_how_they_were_lost(
    work_queue: WorkQueue, client: redis.Redis, request_id: str
) -> None:
    take(work_queue, "io", "t1")
    lose(work_queue, client, request_id)
    assert counted(client, "attempts") == {"attempts|prepare|lease_expired": 1}
    take(work_queue, "io", "t2")
    assert work_queue.declare_dead("io", "worker") == 1
    reap(work_queue, client)
    assert counted(client, "attempts") == {
        "attempts|prepare|lease_expired": 1,
        "attempts|prepare|worker_died": 1,
    }


async def test_bells_that_reaping_rings_for_are_counted(
    requests: RequestStore, work_queue: WorkQueue, client: redis.Redis, request_id: str
) -> None:
    reap(work_queue, client)
    assert counted(client, "doorbells") == {}, "the submit rang"
    to_gpu(work_queue, request_id)
    await requests.submit("b", "model", {}, "local", [])
    client.delete("rq:queue:zturbo-io", "rq:queue:zturbo-gpu")
    reap(work_queue, client)
    assert counted(client, "doorbells") == {"doorbells_topped_up": 2}


async def test_changes_and_steps_are_published(
    requests: RequestStore, work_queue: WorkQueue, client: redis.Redis, request_id: str, heard: Heard
) -> None:
    to_gpu(work_queue, request_id)
    assert heard() == []
    take(work_queue, "gpu", "t1")
    assert heard() == [("changed", request_id)]
    for step in (0, 1, 1, 2):
        work_queue.beat(request_id, "t1", step, 8)
    assert heard() == [("stepped", request_id)] * 2
    work_queue.release(request_id, "t1")
    assert heard() == [("changed", request_id)]
    await requests.cancel(request_id)
    assert heard() == [("changed", request_id)]


async def test_preview_and_token_expire_with_the_lease(
    work_queue: WorkQueue, client: redis.Redis, request_id: str
) -> None:
    to_gpu(work_queue, request_id)
    take(work_queue, "gpu", "t1")
    work_queue.beat(request_id, "t1", 1, 8, b"jpeg")
    preview = f"zturbo:preview:{request_id}"
    for key in ("zturbo:token:t1", preview):
        assert LEASE_MS - SLACK_MS < client.pttl(key) <= LEASE_MS
    # The next step may take longer than a lease.
    client.pexpire(preview, 1000)
    work_queue.beat(request_id, "t1", 1, 8)
    assert LEASE_MS - SLACK_MS < client.pttl(preview) <= LEASE_MS


async def test_release_that_is_sent_again_is_known_as_such(
    work_queue: WorkQueue, client: redis.Redis, request_id: str
) -> None:
    take(work_queue, "io", "t1")
    call = scripts.release(id=request_id, token="t1")
    assert [Scripts(client).run(call) for _ in range(2)] == ["held", "repeated"]


async def test_end_of_a_run_of_redis_is_kept_for_a_day(work_queue: WorkQueue, client: redis.Redis) -> None:
    reap(work_queue, client)
    boot = str(client.get("zturbo:boot"))
    assert not client.exists("zturbo:outages"), "it is the first run that is seen"
    assert boot.split()[0] == client.info("server")["run_id"]
    seconds, _ = client.time()
    kept = {"1 2": (seconds - 80_000) * 1000, "0 1": (seconds - 90_000) * 1000}
    client.zadd("zturbo:outages", kept)
    reap(work_queue, client)
    assert client.zcard("zturbo:outages") == 2, "this run goes on"

    seen = int(boot.split()[1]) - 60_000
    client.set("zturbo:boot", f"abc {seen}")
    reap(work_queue, client)
    older, newer = client.zrange("zturbo:outages", 0, -1)
    since, until = map(int, newer.split())
    assert (older, since) == ("1 2", seen)
    assert seconds * 1000 <= until < seconds * 1000 + 60_000
    assert str(client.get("zturbo:boot")).split()[0] != "abc"


async def test_turn_is_forgotten_when_it_is_over(work_queue: WorkQueue, client: redis.Redis) -> None:
    assert work_queue.has_turn("sweep", 60)
    assert 60_000 - SLACK_MS < client.pttl("zturbo:turn:sweep") <= 60_000
