"""News of requests as their records change: one subscription for a whole process, however many wait for news.

A notice says only that there is something new; the record says what. So a notice that is lost while Redis is
away costs nothing: everybody looks again when it is back.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from worker.cancellation import cancelled
from worker.queue import keys

LINE_SECONDS = 0.5
"""Places in the line are told this often at most: each start of a request moves all the others."""

RETRY_SECONDS = 0.5

log = logging.getLogger(__name__)


class Listener:
    """One who waits for news of one request."""

    def __init__(self) -> None:
        self.changed = True
        """The record has to be read again."""
        self.position: int | None = None
        """Requests ahead of it as last read; set while it stands in the line."""
        self._news = asyncio.Event()

    def tell(self, changed: bool = True) -> None:
        self.changed |= changed
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Until there is news, or not for so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        told = self._news.is_set()
        self._news.clear()
        return told


class Changes:
    """One for a server; `close` it at the end. It subscribes when the first listener comes."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)
        self._subscribed = asyncio.Event()
        self._line_moved = False
        self._line_read_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        await cancelled(self._task)

    @asynccontextmanager
    async def listen(self, request_id: str) -> AsyncIterator[Listener]:
        """What changes from here on is told, so read the record within."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        listener = Listener()
        self._listeners[request_id].add(listener)
        try:
            # Without Redis there is no record to read either: the caller will hear of it there.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._subscribed.wait(), RETRY_SECONDS)
            yield listener
        finally:
            self._listeners[request_id].discard(listener)
            if not self._listeners[request_id]:
                del self._listeners[request_id]

    async def _run(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as subscription:
                    await subscription.subscribe(keys.CHANGED, keys.STEPPED)
                    await self._hear(subscription)
            except RedisError as error:
                log.warning("no news of requests: %s", error)
                self._subscribed.clear()
                await asyncio.sleep(RETRY_SECONDS)

    async def _hear(self, subscription: Any) -> None:
        while True:
            message = await subscription.get_message(timeout=LINE_SECONDS)
            match message:
                case {"type": "subscribe"}:
                    self._subscribed.set()
                    for listeners in self._listeners.values():
                        _tell_all(listeners)
                case {"type": "message", "channel": channel, "data": request_id}:
                    self._line_moved |= channel == keys.CHANGED
                    _tell_all(self._listeners.get(request_id, ()))
            now = asyncio.get_running_loop().time()
            if self._line_moved and now - self._line_read_at >= LINE_SECONDS:
                self._line_moved, self._line_read_at = False, now
                await self._read_line()

    async def _read_line(self) -> None:
        """Tells each who stands in the line its new place, by one round trip for all."""
        waiting = {
            request_id: listeners
            for request_id, listeners in self._listeners.items()
            if any(listener.position is not None for listener in listeners)
        }
        pipe = self._client.pipeline(transaction=False)
        for request_id in waiting:
            pipe.zrank(keys.LINE, request_id)
        for listeners, rank in zip(waiting.values(), await pipe.execute(), strict=True):
            for listener in listeners:
                if rank is not None and listener.position not in (None, rank):
                    listener.position = rank
                    listener.tell(changed=False)


def _tell_all(listeners: "set[Listener] | tuple[()]") -> None:
    for listener in listeners:
        listener.tell()
