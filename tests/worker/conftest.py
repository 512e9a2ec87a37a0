"""The two sides of a request: the API's moves and a worker's, on the same real Redis."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.worker.runtime.crew import Crew
from worker.config import WorkerSettings
from worker.queue.connection import connect, connect_async
from worker.queue.doorbell import Doorbells
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> WorkerSettings:
    return WorkerSettings(_env_file=None, data_dir=tmp_path, redis_url=redis_url, lease_seconds=30)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def records(client: redis.Redis, settings: WorkerSettings) -> WorkQueue:
    return WorkQueue(client, settings)


class TwiceScripts:
    """Sends every script twice and gives the second answer, as redis-py does when the first reply is lost."""

    def __init__(self, scripts: Any) -> None:
        self._scripts = scripts

    def run(self, name: str, *args: Any) -> Any:
        first = self._scripts.run(name, *args)
        if isinstance(first, (str, int, list)) or first is None:
            return self._scripts.run(name, *args)
        return self._again(first, name, *args)

    async def _again(self, first: Any, name: str, *args: Any) -> Any:
        await first
        return await self._scripts.run(name, *args)


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
    requests = RequestStore(
        connect_async(settings.redis_url or ""), Doorbells(settings.redis_url or ""), settings
    )
    records = WorkQueue(client, settings)
    if request.param == "twice":
        requests._scripts = TwiceScripts(requests._scripts)  # type: ignore[assignment]
        records._scripts = TwiceScripts(records._scripts)  # type: ignore[assignment]
    yield requests, records
    await requests.close()


@pytest.fixture
async def crew(redis_url: str, tmp_path: Path) -> AsyncIterator[Crew]:
    crew = Crew(redis_url, tmp_path / "data")
    yield crew
    await crew.close()
