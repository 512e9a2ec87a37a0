"""The two sides of a request: the API's moves and a worker's, on the same real Redis."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis

from tests.worker.runtime.crew import Crew
from worker.config import WorkerSettings
from worker.queue.connection import connect, connect_async
from worker.queue.doorbell import Doorbells
from worker.queue.requests import RequestStore
from worker.queue.scripts import AsyncScripts, Call, Scripts
from worker.queue.work_queue import WorkQueue

T = TypeVar("T")


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> WorkerSettings:
    return WorkerSettings(_env_file=None, data_dir=tmp_path, redis_url=redis_url, lease_seconds=30)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def work_queue(client: redis.Redis, settings: WorkerSettings) -> WorkQueue:
    return WorkQueue(client, settings)


class TwiceScripts(Scripts):
    """Sends every script twice and gives the second answer, as redis-py does when the first reply is lost."""

    def run(self, call: Call[T]) -> T:
        super().run(call)
        return super().run(call)


class AsyncTwiceScripts(AsyncScripts):
    async def run(self, call: Call[T]) -> T:
        await super().run(call)
        return await super().run(call)


@pytest.fixture
async def requests(settings: WorkerSettings) -> AsyncIterator[RequestStore]:
    requests = RequestStore.connect(settings)
    yield requests
    await requests.close()


@pytest.fixture(params=["once", "twice"])
async def sides(
    request: pytest.FixtureRequest, client: redis.Redis, settings: WorkerSettings
) -> AsyncIterator[tuple[RequestStore, WorkQueue]]:
    """Both sides; every test that takes this runs also with each script sent twice."""
    async_client = connect_async(settings.redis_url or "")
    requests = RequestStore(async_client, Doorbells(settings.redis_url or ""), settings)
    work_queue = WorkQueue(client, settings)
    if request.param == "twice":
        requests._scripts = AsyncTwiceScripts(async_client)
        work_queue._scripts = TwiceScripts(client)
    yield requests, work_queue
    await requests.close()


@pytest.fixture
async def crew(redis_url: str, tmp_path: Path) -> AsyncIterator[Crew]:
    crew = Crew(redis_url, tmp_path / "data")
    yield crew
    await crew.close()
