"""The clients of Redis, and the error that callers get while it is away."""

import asyncio
from types import TracebackType

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
)
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from worker.errors import StoreUnavailable

DEFAULT_REDIS_URL = "redis://localhost:6379/0"

SOCKET_SECONDS = 5.0
"""Longest wait for one answer of Redis."""

API_CALLS = 32
"""Calls of one API process at once, each on a connection of its own. A thousand new connections in one moment
are refused: servers keep 511 in line to be let in."""

API_RETRIES = 3
WORKER_RETRIES = 10
"""Times a command is sent again when its answer is lost; every script is safe to be sent twice."""

PASSING = (ConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)
"""What redis-py raises while Redis is down, starting, full or a replica; all of it may pass."""

AWAY = "The request store (Redis) cannot be reached or cannot write; try again shortly."


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


def is_away(error: Exception) -> bool:
    """Whether Redis may take the same command later.

    A server that cannot write its append-only file any more (disk full) answers MISCONF.
    """
    return isinstance(error, PASSING) or (isinstance(error, ResponseError) and "MISCONF" in str(error))


class RedisGate:
    """Around each of the API's calls to Redis: so many are let through at once, the others wait their turn.

    Turns what redis-py raises while Redis is away into `StoreUnavailable`; so it is also when no turn came.
    """

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(API_CALLS)

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout(SOCKET_SECONDS if self._turns.locked() else None):
                await self._turns.acquire()
        except TimeoutError:
            raise StoreUnavailable(AWAY) from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.release()
        if isinstance(error, RedisError) and is_away(error):
            raise StoreUnavailable(AWAY) from error
