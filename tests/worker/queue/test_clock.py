"""A Redis whose clock is set back and forth: what is due comes in time, and nothing is taken from the living.

`ZTURBO_TEST_EXAMPLES=1000 pytest tests/worker/queue/test_clock.py` looks longer than the suite does.
"""

import json
import os
import sys
import time
from collections.abc import Iterator

import pytest
import redis
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from benchmarks.faults import Faults
from tests.support.redis_server import RedisServer
from worker.config import WorkerSettings
from worker.queue import scripts
from worker.queue.connection import connect
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.scripts import Queued, Scripts
from worker.queue.work_queue import WorkQueue

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the library that moves the clock is for Linux"
)

EXAMPLES = int(os.environ.get("ZTURBO_TEST_EXAMPLES", "40"))
LEASE = 6
TICK = 1
"""Seconds of Redis's clock between two looks of the workers."""
HOUR = 3600
FOREVER = 20 * 365 * 24 * HOUR
SIX_A_MINUTE = (1000, 0, 6)


def date(client: redis.Redis) -> float:
    """Redis's own."""
    seconds, micros = client.time()  # type: ignore[misc]
    return float(seconds + micros / 1e6)


class World:
    """A living worker that beats, a dead one that does not, and a caller at the end of its rate."""

    def __init__(self, client: redis.Redis, faults: Faults) -> None:
        client.flushall()
        faults.clear()
        settings = WorkerSettings(_env_file=None, lease_seconds=LEASE, retention_days=1)
        self.client = client
        self.work_queue = WorkQueue(client, settings)
        self.scripts = Scripts(client)
        self.faults = faults
        self.registry = Registry(client, hold_seconds=LEASE / 2)
        for name in ("living", "dead"):
            assert self.submit(name, "ann", (1000, 0, 0)) == "queued"
            record = self.work_queue.next("io", f"token-{name}", name)
            assert record is not None
            assert record.id == name
        for name in ("living", "dead"):
            self.registry.say(WorkerInfo(name, "io", "busy"))
        while self.submit(f"bob-{self.submitted()}", "bob", SIX_A_MINUTE) == "queued":
            pass
        assert self.work_queue.has_turn("sweep", LEASE)

    def submit(self, request_id: str, owner: str, limits: tuple[int, int, int]) -> str:
        most, most_of_owner, most_in_minute = limits
        answer = self.scripts.run(
            scripts.submit(
                id=request_id,
                owner=owner,
                most=most,
                most_of_owner=most_of_owner,
                most_in_minute=most_in_minute,
                fields={"model_id": "m", "input": "{}", "warnings": "[]"},
            )
        )
        if isinstance(answer, Queued):
            return "queued"
        if answer.why == "too_fast":
            assert 1 <= answer.seconds <= 10
        return answer.why

    def submitted(self) -> int:
        return int(self.client.get("zturbo:sequence"))  # type: ignore[arg-type]

    def set_clock(self, seconds: float) -> None:
        self.faults.set_clock(seconds)
        # Redis remembers for about a millisecond what its clock said.
        while abs(date(self.client) - time.time() - self.faults.clock_offset) > TICK / 2:
            time.sleep(0.0005)

    def go_on(self, seconds: float) -> None:
        """So much time passes; the living do what they do, and keep what they hold."""
        for _ in range(int(seconds / TICK)):
            self.set_clock(TICK)
            assert self.work_queue.beat("living", "token-living") == "held"
            self.registry.say(WorkerInfo("living", "io", "busy"))
            self.work_queue.reap(TICK)

    def holder(self, request_id: str) -> str | None:
        holder: str | None = self.client.hget(f"zturbo:req:{request_id}", "worker")  # type: ignore[assignment]
        return holder

    def workers(self) -> list[str]:
        return [json.loads(said)["id"] for said in self.scripts.run(scripts.workers())]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def server(faults: Faults) -> Iterator[RedisServer]:
    server = RedisServer(env=faults.env)
    yield server
    server.remove()


@pytest.fixture(scope="module")
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with connect(server.url) as client:
        yield client


@pytest.fixture
def world(client: redis.Redis, faults: Faults) -> World:
    return World(client, faults)


pauses = st.integers(0, 2 * LEASE)
steps = st.integers(-FOREVER, FOREVER) | st.integers(-2 * LEASE, 2 * LEASE)


@example([(0, -HOUR)])
@example([(0, HOUR), (LEASE, -HOUR)])
@example([(0, FOREVER), (1, -FOREVER)])
@given(st.lists(st.tuples(pauses, steps), max_size=5))
@profile(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 40)
def test_however_the_clock_is_set_what_is_due_comes_in_time(
    client: redis.Redis, faults: Faults, moves: list[tuple[int, int]]
) -> None:
    world = World(client, faults)
    for pause, step in moves:
        world.go_on(pause)
        world.set_clock(step)
    world.go_on(LEASE + 3 * TICK)
    assert world.holder("dead") is None, "its lease is over, and so is the grace after the last step"
    assert world.holder("living") == "living"
    assert world.workers() == ["living"]
    assert world.work_queue.has_turn("sweep", LEASE)
    world.go_on(10)
    assert world.submit("bob", "bob", SIX_A_MINUTE) == "queued"
    assert world.work_queue.advance("living", "token-living", "generate", {}) == 1
    record = world.work_queue.get("living")
    assert record is not None
    assert 0 <= record.spent["prepare"] < 24 * HOUR * (len(moves) + 1)


def test_clock_set_back_while_redis_is_away_delays_nothing(
    server: RedisServer, client: redis.Redis, world: World
) -> None:
    world.go_on(1)
    server.kill()
    world.faults.set_clock(-HOUR)
    server.start()
    world.go_on(LEASE + 3 * TICK)
    assert world.holder("dead") is None
    assert world.workers() == ["living"]


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_worker_known_to_be_dead_is_not_waited_for_after_a_step(world: World, step: int) -> None:
    world.go_on(1)
    world.set_clock(step)
    assert world.work_queue.declare_dead("io", "dead") == 1
    world.go_on(2 * TICK)
    assert world.holder("dead") is None


def test_callers_are_told_the_date_as_it_is(client: redis.Redis, world: World) -> None:
    world.set_clock(HOUR)
    world.go_on(1)
    world.set_clock(-2 * HOUR)
    world.submit("later", "ann", (1000, 0, 0))
    now = date(client)
    later = world.work_queue.get("later")
    assert later is not None
    assert now - 5 <= later.created_at <= now + 1
    world.work_queue.fail("living", "token-living", "broken", "it broke")
    ended = world.work_queue.get("living")
    assert ended is not None
    assert ended.finished_at is not None
    assert now - 5 <= ended.finished_at <= now + 5
