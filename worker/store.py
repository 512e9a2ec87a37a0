"""How Redis is reached, and how the Lua scripts, the only writers of its `zturbo:` keys, are run."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from worker.errors import StoreUnavailable
from worker.queue import BELL_LISTS

DEFAULT_REDIS_URL = "redis://localhost:6379/0"

SOCKET_SECONDS = 5.0
"""Longest wait for one answer of Redis."""

API_RETRIES = 3
WORKER_RETRIES = 10
"""Times a command is sent again when its answer is lost; every script is safe to be sent twice."""

AWAY = (ConnectionError, TimeoutError, OutOfMemoryError, ReadOnlyError)
"""What redis-py raises while Redis is down, starting, full or a replica; all of it may pass."""

_LUA = Path(__file__).parent / "lua"


def connect(redis_url: str) -> redis.Redis:
    """A client for a worker. Safe to share between threads: each call has a connection of its own."""
    retry = Retry(ExponentialWithJitterBackoff(base=0.01, cap=1.0), WORKER_RETRIES)
    return redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=SOCKET_SECONDS, retry=retry)


def connect_async(redis_url: str) -> "redis.asyncio.Redis":
    """A client for the API, which would rather answer 503 soon than wait long."""
    retry = AsyncRetry(ExponentialWithJitterBackoff(base=0.01, cap=0.25), API_RETRIES)
    return redis.asyncio.Redis.from_url(
        redis_url, decode_responses=True, socket_timeout=SOCKET_SECONDS, retry=retry
    )


@cache
def script_source(name: str) -> str:
    return (_LUA / "lib.lua").read_text() + (_LUA / f"{name}.lua").read_text()


class Scripts:
    """The scripts in `lua/` on one client, which may be an async one: then `run` returns an awaitable."""

    def __init__(self, client: "redis.Redis | redis.asyncio.Redis") -> None:
        self._client = client
        self._registered: dict[str, Any] = {}

    def run(self, name: str, *args: str | int | float) -> Any:
        script = self._registered.get(name)
        if script is None:
            script = self._registered[name] = self._client.register_script(script_source(name))
        return script(keys=BELL_LISTS, args=args)


def is_away(error: Exception) -> bool:
    """Whether Redis may take the same command later.

    A server that cannot write its append-only file any more (disk full) answers MISCONF.
    """
    return isinstance(error, AWAY) or (isinstance(error, ResponseError) and "MISCONF" in str(error))


@contextmanager
def reaching_store() -> Iterator[None]:
    """Turns what redis-py raises while Redis is away into `StoreUnavailable`."""
    try:
        yield
    except RedisError as error:
        if not is_away(error):
            raise
        raise StoreUnavailable(
            "The request store (Redis) cannot be reached or cannot write; try again shortly."
        ) from error
