"""A GPU whose workers end again and again without a picture."""

import os
import signal

import pytest
import redis

from app.routes.health import missing
from tests.worker.runtime.crew import Crew
from worker.runtime import quarantine
from worker.runtime.quarantine import FAILURES, QUICK_SECONDS, REST_SECONDS, CrashLoop

pytestmark = pytest.mark.anyio


@pytest.fixture
def crash_loop(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> CrashLoop:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(quarantine.socket, "gethostname", lambda: "box")
    return CrashLoop(client, "auto")


def test_starts_without_a_picture_are_counted(crash_loop: CrashLoop) -> None:
    assert [crash_loop.begin() for _ in range(3)] == [0, 1, 2]
    crash_loop.passed()
    assert crash_loop.begin() == 0


def test_each_gpu_is_counted_by_itself(
    crash_loop: CrashLoop, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_loop.begin()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert CrashLoop(client, "auto").begin() == 0


def test_count_outlives_the_rest_and_is_forgotten_after_a_while(
    crash_loop: CrashLoop, client: redis.Redis
) -> None:
    crash_loop.begin()
    assert REST_SECONDS < client.ttl("zturbo:unproven:GPU 1 of box") <= QUICK_SECONDS


def test_without_redis_nothing_is_counted(tmp_path: object) -> None:
    with redis.Redis.from_url(f"unix://{tmp_path}/none.sock") as nobody:
        crash_loop = CrashLoop(nobody, "auto")
        assert crash_loop.begin() == 0
        crash_loop.passed()


async def test_death_without_a_picture_counts(crew: Crew, client: redis.Redis) -> None:
    crew.start("io")
    await crew.submit("a", "die")
    worker = crew.start("gpu", CUDA_VISIBLE_DEVICES="7")
    worker.join(20)
    assert worker.exitcode == 1
    (key,) = client.keys("zturbo:unproven:*")
    assert client.get(key) == "1"


async def test_worker_on_a_failing_gpu_rests_and_says_so_until_it_is_stopped(
    crew: Crew, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    for _ in range(FAILURES):
        CrashLoop(client, "auto").begin()
    resting = crew.start("gpu", CUDA_VISIBLE_DEVICES="7")
    (info,) = await crew.workers("quarantined")
    assert info.detail is not None
    assert info.detail.startswith("GPU 7 of ")
    assert f"{FAILURES} workers on it ended" in info.detail
    assert info.detail in (missing("gpu", [info]) or "")

    assert resting.pid is not None
    os.kill(resting.pid, signal.SIGTERM)
    resting.join(20)
    assert client.keys("zturbo:unproven:*") == []


async def test_picture_ends_the_count(crew: Crew, client: redis.Redis) -> None:
    crew.start("io")
    crew.start("gpu", CUDA_VISIBLE_DEVICES="7")
    await crew.workers("ready", 2)
    assert len(client.keys("zturbo:unproven:*")) == 1
    await crew.submit("a")
    assert (await crew.until("a")).state == "succeeded"
    assert client.keys("zturbo:unproven:*") == []
