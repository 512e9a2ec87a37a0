"""Workers that give their memory back while no request comes, and the requests that wake them."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import redis

from tests.support.processes import wait_for
from tests.worker.runtime.crew import Crew
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
ASLEEP = WorkerInfo("gpu-box-1-a", "gpu", "asleep")


class Sleepers:
    """Commands of GPU workers that sleep after a second without work."""

    def __init__(self, crew: Crew) -> None:
        settings = crew.settings
        self.processes: list[subprocess.Popen[bytes]] = []
        self._log = settings.data_dir / "workers.log"
        self._env = os.environ | {
            "ZTURBO_DATA_DIR": str(settings.data_dir),
            "ZTURBO_REDIS_URL": str(settings.redis_url),
            "ZTURBO_MODEL": "demo",
            "ZTURBO_IDLE_SECONDS": "1",
        }

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=self._env, cwd=ROOT, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def start_small(self) -> subprocess.Popen[bytes]:
        """With the tests' own engine."""
        return self.start("-m", "tests.worker.runtime.worker_process", str(self._log))


@pytest.fixture
def sleepers(crew: Crew) -> Iterator[Sleepers]:
    found = Sleepers(crew)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


@pytest.fixture
def registry(client: redis.Redis) -> Registry:
    return Registry(client, hold_seconds=10)


def has_loaded_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


async def test_real_worker_gives_its_memory_back_and_ends_at_once_when_stopped_asleep(
    crew: Crew, sleepers: Sleepers
) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    process = sleepers.start("-P", "-m", "app", "worker", "gpu")
    # Seldom: what a process has mapped is long, and reading it holds the process up.
    wait_for(lambda: has_loaded_torch(process.pid), 60, pause=0.2)
    wait_for(lambda: not has_loaded_torch(process.pid), 60, pause=0.2)
    (asleep,) = await crew.workers("asleep")
    assert f"{asleep.id} is ready" in crew.log()
    assert asleep.detail == "No request came for 1 s, so it gave its memory back; the next one wakes it."

    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0, crew.log()
    assert (await crew.requests.stats()).workers == []


async def test_requests_that_come_while_it_falls_asleep_and_while_it_sleeps_are_made(
    crew: Crew, sleepers: Sleepers
) -> None:
    crew.start("io")
    process = sleepers.start_small()
    pauses = random.Random(1)
    for number in range(3):
        (worker,) = await crew.workers("asleep")
        # From the moment in which the old program says it, to the time when the new one has begun to wait.
        await anyio.sleep(pauses.uniform(0, 0.8) if number else 0)
        await crew.submit(f"{number}", seed=number)
        record = await crew.until(f"{number}")
        assert (record.state, record.attempt) == ("succeeded", 1), crew.log()
        assert worker.id in {info.id for info in (await crew.requests.stats()).workers}
    assert process.poll() is None
    assert crew.engine_log() == [line for seed in range(3) for line in (f"begin {seed}", f"end {seed}")]


async def test_first_request_says_that_the_model_is_being_loaded(registry: Registry, crew: Crew) -> None:
    registry.say(ASLEEP)
    await crew.submit("a")
    await crew.submit("b")
    assert (await crew.get("a")).note == "The model is asleep; the next request wakes it."
    assert (await crew.get("b")).note is None
    registry.say(WorkerInfo(ASLEEP.id, "gpu", "waking"))
    assert (await crew.get("a")).note == "The model is being loaded."
    registry.say(WorkerInfo("gpu-box-2-b", "gpu", "ready"))
    assert (await crew.get("a")).note is None


async def test_one_request_wakes_one_sleeper(
    registry: Registry, sides: tuple[RequestStore, WorkQueue], crew: Crew
) -> None:
    _, work_queue = sides
    other = WorkerInfo("gpu-box-2-b", "gpu", "asleep")
    registry.say(ASLEEP)
    registry.say(other)
    assert not registry.wake(ASLEEP)

    await crew.submit("a")
    assert not registry.wake(ASLEEP)
    prepare(work_queue, "1")
    waking = WorkerInfo(ASLEEP.id, "gpu", "waking")
    # A second time it is the same, as its reply may be lost.
    assert [registry.wake(waking), registry.wake(waking), registry.wake(other)] == [True, True, False]

    await crew.submit("b")
    prepare(work_queue, "2")
    assert registry.wake(other)


async def test_sleeper_is_left_asleep_by_what_an_idle_worker_takes_and_not_by_a_busy_one(
    registry: Registry, work_queue: WorkQueue, crew: Crew
) -> None:
    awake = WorkerInfo("gpu-box-2-b", "gpu", "ready")
    registry.say(awake)
    registry.say(WorkerInfo("gpu-box-3-c", "gpu", "quarantined"))
    registry.say(ASLEEP)
    await crew.submit("a")
    prepare(work_queue, "1")
    assert not registry.wake(ASLEEP)
    assert work_queue.next("gpu", "2", awake.id) is not None
    await crew.submit("b")
    prepare(work_queue, "3")
    assert registry.wake(ASLEEP)


def prepare(work_queue: WorkQueue, token: str) -> None:
    record = work_queue.next("io", token, "io-box-9-z")
    assert record is not None
    work_queue.advance(record.id, token, "generate", {})
