"""Redis on a slow disk, killed: what becomes of requests that were answered with an id."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.faults import Faults
from tests.support.redis_server import RedisServer
from worker.config import WorkerSettings
from worker.queue.connection import connect
from worker.queue.outages import new_request_id
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the library that slows the disk down is for Linux"),
]

FSYNC_SECONDS = {"everysec": 5.0, "always": 0.05}
SUBMIT_SECONDS = 2.0
"""`everysec` begins to flush within the first, and holds back what comes while it does."""

Slow = Callable[[str], RedisServer]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    """Starts a Redis that is told when to flush, on a disk where that takes long."""
    servers: list[RedisServer] = []
    faults = Faults(tmp_path)

    def start(appendfsync: str) -> RedisServer:
        servers.append(RedisServer("--appendfsync", appendfsync, env=faults.env))
        faults.delay_fsync(FSYNC_SECONDS[appendfsync])
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


async def submit_for_a_while(server: RedisServer, tmp_path: Path) -> list[str]:
    """The ids that were answered, the last one just before Redis was killed."""
    settings = WorkerSettings(_env_file=None, data_dir=tmp_path, redis_url=server.url, max_queue=1_000_000)
    requests = RequestStore.connect(settings)
    answered: list[str] = []
    end = time.monotonic() + SUBMIT_SECONDS
    while time.monotonic() < end:
        taken = await requests.submit(new_request_id(), "model", {}, "local", [])
        answered.append(taken.request_id)
    server.kill()
    await requests.close()
    return answered


async def test_everything_that_was_answered_is_there_with_always(slow: Slow, tmp_path: Path) -> None:
    server = slow("always")
    answered = await submit_for_a_while(server, tmp_path)
    server.start()
    with connect(server.url) as client:
        assert client.exists(*(f"zturbo:req:{request_id}" for request_id in answered)) == len(answered)


async def test_what_everysec_lost_is_known_as_lost(slow: Slow, tmp_path: Path) -> None:
    server = slow("everysec")
    settings = WorkerSettings(_env_file=None, data_dir=tmp_path, redis_url=server.url)
    with connect(server.url) as client:
        WorkQueue(client, settings).reap(0.001)
    answered = await submit_for_a_while(server, tmp_path)
    server.start()
    with connect(server.url) as client:
        WorkQueue(client, settings).reap(0.001)
        lost = [each for each in answered if not client.exists(f"zturbo:req:{each}")]
    assert lost
    requests = RequestStore.connect(settings)
    assert all([await requests.outage_at(request_id) for request_id in lost])
    long_ago = f"{int((time.time() - 3600) * 1000):012x}" + 20 * "0"
    assert await requests.outage_at(long_ago) is None
    assert await requests.outage_at("a-name-of-somebodys-own") is None
    await requests.close()
