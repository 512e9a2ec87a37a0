"""A GPU whose workers end again and again without a picture is left alone for a while, and named.

Counted in Redis from start to start, since a worker that is killed or crashes cannot tell of itself; so it
also holds where something other than our supervisor restarts workers.
"""

import os
import socket
from contextlib import suppress

import redis
from redis.exceptions import RedisError

from worker.queue import keys

FAILURES = 5
QUICK_SECONDS = 600
"""Failures further apart have nothing to do with one another."""
REST_SECONDS = 300.0
"""Shorter than QUICK_SECONDS: after it there is one more try, not five."""


class CrashLoop:
    """What became of the workers on one GPU. Without Redis nothing is counted."""

    def __init__(self, client: redis.Redis, device: str) -> None:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.name = f"{f'GPU {gpu}' if gpu else f'device {device}'} of {socket.gethostname()}"
        self._client = client
        self._key = keys.UNPROVEN + self.name

    def begin(self) -> int:
        """Counts this start; returns how many before it ended without a picture."""
        with suppress(RedisError), self._client.pipeline() as pipe:
            pipe.incr(self._key)
            pipe.expire(self._key, QUICK_SECONDS)
            starts, _ = pipe.execute()
            return int(starts) - 1
        return 0

    def passed(self) -> None:
        """Called after a picture, or an orderly end."""
        with suppress(RedisError):
            self._client.delete(self._key)
