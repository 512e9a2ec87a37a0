"""The thread of a worker process that once a second says that it lives, and puts right what others left.

It takes requests from workers that fell silent, and rings the bells that are missing.
"""

import logging
import threading
from collections.abc import Callable

from redis.exceptions import RedisError

from worker.queue.doorbell import Doorbells
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.work_queue import WorkQueue
from worker.runtime import heartbeat

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
TICKS_PER_LEASE = 10
"""A tick is this part of the lease at most, for leases shorter than ten seconds."""


class Reconciler:
    """A thread with a client of its own; start it once, stop it once."""

    def __init__(
        self,
        work_queue: WorkQueue,
        registry: Registry,
        bells: Doorbells,
        lease_seconds: float,
        describe: Callable[[], WorkerInfo],
    ) -> None:
        """`describe` tells the worker's state."""
        self._work_queue = work_queue
        self._registry = registry
        self._bells = bells
        self._tick = min(TICK_SECONDS, lease_seconds / TICKS_PER_LEASE)
        self._describe = describe
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._redis_away = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look()
                self._redis_away = False
            except RedisError as error:
                if not self._redis_away:
                    log.warning("Redis does not answer: %s", error)
                self._redis_away = True
            except Exception:
                log.exception("the reconciler goes on after an error")
            self._stopped.wait(self._tick)

    def _look(self) -> None:
        info = self._describe()
        self._registry.say(info)
        heartbeat.beat(info.kind, info.state)
        reaped = self._work_queue.reap(self._tick)
        if reaped is None:
            return
        if reaped.handed_back or reaped.failed:
            log.warning(
                "%d requests taken from silent workers: %d wait again, %d failed",
                reaped.handed_back + reaped.failed,
                reaped.handed_back,
                reaped.failed,
            )
        for queue, missing in reaped.bells.items():
            self._bells.ring(queue, missing)
