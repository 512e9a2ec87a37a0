"""Requests off a worker's queue, each seen through its stage to a record that tells the outcome.

One at a time, but that a device begins the next picture while the last one is kept and written down.
Whatever a stage raises ends in the record; nothing a request does takes the worker with it silently.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import NoReturn, TypeVar

from redis.exceptions import RedisError

from models.errors import Cancelled, DeviceBroken, ModelError
from worker.errors import LeaseLost, WorkerError
from worker.logs import about
from worker.queue.connection import is_away
from worker.queue.doorbell import Queue
from worker.queue.lease import Lease
from worker.queue.work_queue import Record, Records
from worker.stages.dispatch import Keep, Work, Write

log = logging.getLogger(__name__)

T = TypeVar("T")

DRAIN_SECONDS = 600.0
"""A worker answers a bell this long at most, then lets RQ look after itself; the reconciler rings again."""

AWAY_PAUSE_SECONDS = 0.5

DEVICE_BROKEN_STATUS = 70
"""What a worker process ends with whose device only a new process can use."""

HAND_OVER_SECONDS = 5.0
"""A picture that a device made before it broke has so long to be kept."""


class Life:
    """What one worker does with the requests of its queue."""

    def __init__(
        self,
        queue: Queue,
        worker_id: str,
        records: Records,
        beats: Records,
        work: Work,
        lease_seconds: float,
        quit: Callable[[int, str], NoReturn],
    ) -> None:
        """`beats` is on a client of its own, for the lease's thread.

        `quit` gives up what is in hand and ends the process with a status, for a reason; it may be called
        on any thread.
        """
        self.holdings: dict[str, str] = {}
        """Requests in this worker's hands: their ids by token."""
        self._queue = queue
        self._worker_id = worker_id
        self._records = records
        self._beats = beats
        self._lease_seconds = lease_seconds
        self._quit = quit
        self._work = work
        self._token = _new_token()
        self._thread = ThreadPoolExecutor(1, "hand-over")
        self._handing_over: Future[None] | None = None

    def drain(self, stopping: threading.Event) -> None:
        """Takes requests until none waits, it is time to stop, or the bell was answered long enough."""
        end = time.monotonic() + DRAIN_SECONDS
        try:
            while not stopping.is_set() and time.monotonic() < end and self._take(stopping):
                pass
        finally:
            self._wait_for_hand_over()

    def _take(self, stopping: threading.Event) -> bool:
        """One request; False when none waits."""
        # The token is kept when this raises: what a lost reply handed out is then asked for again.
        record = self._records.next(self._queue, self._token, self._worker_id, self._work.held)
        token, self._token = self._token, _new_token()
        if record is None:
            return False
        with about(record.id), ExitStack() as hold:
            self.holdings[token] = record.id
            hold.callback(self.holdings.pop, token)
            if stopping.is_set():
                self._records.release(record.id, token)
            else:
                self._see_through(record, token, hold)
        return True

    def _see_through(self, record: Record, token: str, hold: ExitStack) -> None:
        started = time.monotonic()
        lease = hold.enter_context(Lease(self._beats, record.id, token, self._lease_seconds))

        def end(work: Callable[[], Write]) -> None:
            try:
                outcome, write = self._outcome(work, record, token, lease)
                _once_redis_answers(write)
            except LeaseLost as error:
                outcome = error.standing
            took = {"seconds": round(time.monotonic() - started, 3), "attempt": record.attempt}
            # What went wrong is in the record: the sentence may quote what the caller wrote.
            log.info("stage ended", extra={"stage": record.stage, "outcome": outcome, **took})

        if self._queue == "io":
            end(lambda: self._work.on_cpu(record, token, lease))
            return
        keep = self._on_device(record, token, lease)
        self._wait_for_hand_over()
        held = hold.pop_all()

        def hand_over() -> None:
            with held:
                end(keep)

        self._handing_over = self._thread.submit(copy_context().run, hand_over)

    def _on_device(self, record: Record, token: str, lease: Lease) -> Keep:
        """Lets the device work; what goes wrong is raised when that is to be kept."""
        try:
            return self._work.on_device(record, token, lease)
        except DeviceBroken as error:
            if self._handing_over:
                wait([self._handing_over], HAND_OVER_SECONDS)
            self._quit(DEVICE_BROKEN_STATUS, str(error))
        except Exception as error:
            return partial(_raise, error)

    def _wait_for_hand_over(self) -> None:
        """Raises what it raised."""
        ended, self._handing_over = self._handing_over, None
        if ended:
            ended.result()

    def _outcome(
        self, work: Callable[[], Write], record: Record, token: str, lease: Lease
    ) -> tuple[str, Write]:
        """Does the work; returns how it ended, `done` or an error's code, and the move that writes it."""
        try:
            return "done", work()
        except Cancelled as error:
            if lease.lost:
                raise LeaseLost(f"Request {record.id}: {error}", lease.lost) from error
            return error.code, self._failure(record, token, error.code, str(error))
        except (ModelError, WorkerError) as error:
            return error.code, self._failure(record, token, error.code, str(error))
        except Exception:
            log.exception("request %s failed in %s", record.id, record.stage)
            message = f"Something broke on this server; its log tells more under request {record.id}."
            return "internal_error", self._failure(record, token, "internal_error", message)

    def _failure(self, record: Record, token: str, code: str, message: str) -> Write:
        def fail() -> None:
            self._records.fail(record.id, token, code, message)
            self._work.forget(record.id)

        return fail


def _raise(error: Exception) -> NoReturn:
    raise error


def _new_token() -> str:
    return secrets.token_hex(16)


def _once_redis_answers(move: Callable[[], T]) -> T:
    """Work that is done is kept while Redis is away; whether it still counts is for its token to tell."""
    while True:
        try:
            return move()
        except RedisError as error:
            if not is_away(error):
                raise
            log.warning("a finished stage waits for Redis: %s", error)
            time.sleep(AWAY_PAUSE_SECONDS)
