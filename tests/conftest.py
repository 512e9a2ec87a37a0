"""Fixtures for every layer: a real Redis, a hub and a language model's server on loopback."""

import gc
import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.hub import hub as hub
from tests.support.prompt_server import prompt_server as prompt_server
from tests.support.redis_server import RedisServer
from tests.support.s3_server import S3Server

# Read by torch at its import. On matrices this small a second thread only waits for a free core:
# a tiny transformer takes 7 ms alone, 200 ms in company.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Every HTTP client reads it anew, a thousand in all: the 140 certificates of a system take 30 ms each time.
os.environ.setdefault("SSL_CERT_FILE", str(Path(__file__).parent / "support" / "authority.pem"))

ONE_SERVER = ("e2e", "playground")
"""Folders whose tests share a `zturbo serve`, which takes many seconds to start."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives a worker the next test when it has done one, but such a folder as a whole, and first of all.

    xdist's own `--dist loadgroup` groups nothing with pytest 9.2 (pytest-xdist issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class FolderScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = nodeid.removeprefix("tests/").partition("/")[0]
            return folder if folder in ONE_SERVER else nodeid

    return FolderScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without a search for garbage: it costs seconds, and what is imported stays."""
    gc.disable()
    done = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return done


def pytest_unconfigure() -> None:
    """Let go of what stayed: Triton tells pages of leaks about what is there when the process ends."""
    gc.unfreeze()


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


@pytest.fixture(scope="session")
def _shared_s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3_server(_shared_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server that does as it should; the AWS_ variables lead to it."""
    _shared_s3.faults()
    for name, value in _shared_s3.environment.items():
        monkeypatch.setenv(name, value)
    return _shared_s3


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """ZTURBO_STORAGE for an empty bucket."""
    return s3_server.make_bucket(f"b{secrets.token_hex(8)}")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
