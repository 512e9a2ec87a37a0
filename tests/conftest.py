"""Fixtures for every layer: a real Redis, a hub and a language model's server on loopback."""

from collections.abc import Iterator

import pytest
import redis

from tests.hub import hub as hub
from tests.prompt_server import prompt_server as prompt_server
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def redis_url(_shared_redis: RedisServer) -> str:
    """URL of an empty Redis; the server is shared by the tests of this process, one after the other."""
    with redis.Redis.from_url(_shared_redis.url) as client:
        client.flushall()
    return _shared_redis.url


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis of this test's own, to be killed and started again."""
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
