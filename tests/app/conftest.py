"""Settings, the application without keys, and a worker's hands; `tests.contract` uses them too."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.config import Settings
from app.main import create_app
from tests.support.http_api import WorkerHands, in_process
from worker.queue.requests import RequestStore


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, redis_url=redis_url, model="z-image-turbo")


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    yield app
    await app.state.requests.close()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(app) as client:
        yield client


@pytest.fixture
def hands(settings: Settings) -> Iterator[WorkerHands]:
    hands = WorkerHands(settings)
    yield hands
    hands.close()


@pytest.fixture
def requests(app: FastAPI) -> RequestStore:
    """What the application itself asks Redis through."""
    requests: RequestStore = app.state.requests
    return requests
