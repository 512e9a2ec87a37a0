"""The loop of a worker process: takes a request from its queue, does the stage, and writes what came of it.

It has one request at a time, except that a device begins the next picture while the last one is kept and
written down. Whatever a stage raises ends in the record; nothing a request does takes the worker with it
silently.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from redis.exceptions import RedisError

from models.errors import Cancelled, DeviceBroken, ModelError
from models.job import Step
from worker.errors import LeaseLost, WorkerError
from worker.logs import about
from worker.queue.affinity import NO_WEIGHTS
from worker.queue.connection import is_away
from worker.queue.doorbell import Doorbells
from worker.queue.keys import QUEUE_OF, Queue, Stage
from worker.queue.lease import Lease
from worker.queue.record import Record
from worker.queue.work_queue import WorkQueue
from worker.runtime.quarantine import CrashLoop
from worker.runtime.watchdog import Watchdog
from worker.stages.dispatch import task_of
from worker.stages.task import Advance, Engine, Finish, Task, Tools

log = logging.getLogger(__name__)

T = TypeVar("T")

DRAIN_SECONDS = 600.0
"""A worker answers a bell this long at most, then lets RQ look after itself; the reconciler rings again."""

AWAY_PAUSE_SECONDS = 0.5

DEVICE_BROKEN_STATUS = 70
"""What a worker process ends with whose device only a new process can use."""
STALLED_STATUS = 71
"""What a worker process ends with when its device hangs."""

HAND_OVER_SECONDS = 5.0
"""A picture that a device made before it broke has so long to be kept."""


@dataclass(frozen=True)
class Failure:
    """The request has failed, for a reason that its caller may read."""

    code: str
    message: str


@dataclass(frozen=True)
class Lost:
    """The request is no longer this worker's, so that nothing of it is written."""

    standing: str
    """`gone`, `cancelled`, or `fenced`: another worker has the request or it is over."""


@dataclass(frozen=True)
class Held:
    """A request in this worker's hands."""

    record: Record
    token: str
    task: Task[Any]
    lease: Lease
    taken_at: float
    """Monotonic seconds."""


class Consumer:
    """What one worker does with the requests of its queue."""

    def __init__(
        self,
        queue: Queue,
        worker_id: str,
        work_queue: WorkQueue,
        beats: WorkQueue,
        bells: Doorbells,
        tools: Tools,
        engine: Engine | None,
        crash_loop: CrashLoop,
        quit: Callable[[int, str], NoReturn],
    ) -> None:
        """`beats` is on a client of its own, for the lease's thread; `engine` is for the gpu queue.

        `quit` gives up what is in hand and ends the process with a status, for a reason; it may be called
        on any thread.
        """
        self.holdings: dict[str, str] = {}
        """Requests in this worker's hands: their ids by token."""
        self._queue = queue
        self._worker_id = worker_id
        self._work_queue = work_queue
        self._beats = beats
        self._bells = bells
        self._tools = tools
        self._engine = engine
        self._crash_loop = crash_loop
        self._quit = quit
        self._loaded = NO_WEIGHTS
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
        if self._engine and self._engine.path and not stopping.is_set():
            self._engine.path.settle()

    def _take(self, stopping: threading.Event) -> bool:
        """One request; False when none waits."""
        # The token is kept when this raises: what a lost reply handed out is then asked for again.
        record = self._work_queue.next(self._queue, self._token, self._worker_id, self._loaded)
        token, self._token = self._token, _new_token()
        if record is None:
            return False
        with about(record.id), ExitStack() as hold:
            self.holdings[token] = record.id
            hold.callback(self.holdings.pop, token)
            if stopping.is_set():
                self._work_queue.release(record.id, token)
                return True
            taken_at = time.monotonic()
            lease = Lease(self._beats, record.id, token, self._tools.settings.lease_seconds)
            hold.enter_context(lease)
            held = Held(record, token, task_of(record, token, self._tools), lease, taken_at)
            if self._queue == "io":
                self._see_through(held)
            else:
                made = self._generate(held)
                self._wait_for_hand_over()
                self._hand_over(held, made, hold.pop_all())
        return True

    def _see_through(self, held: Held) -> None:
        """A stage of the io queue, and its outcome written down."""
        task = held.task
        if held.record.stage == "prepare":
            outcome = self._attempt(held, lambda: task.prepare(held.lease.check))
        else:
            outcome = self._attempt(held, task.finish)
        self._write(held, outcome)

    def _generate(self, held: Held) -> Any:
        """What the device makes of the task, or why it made nothing."""
        assert self._engine is not None  # noqa: S101 - only the gpu queue comes here
        engine, silence = self._engine, self._tools.settings.stall_seconds

        def on_stall(seconds: float) -> None:
            reason = f"Nothing was heard of request {held.record.id} for {seconds:g} s."
            self._quit(STALLED_STATUS, reason)

        def generate() -> Any:
            if weights := held.task.weights:
                self._loaded = self._loaded.after(weights)
            with Watchdog(silence, on_stall) as watchdog:

                def on_step(step: Step) -> None:
                    watchdog.stepped(is_last=step.step == step.total)
                    held.lease.on_step(step)

                def keep_going() -> None:
                    watchdog.heard()
                    held.lease.check()

                return held.task.generate(engine, keep_going, on_step)

        try:
            return self._attempt(held, generate)
        except DeviceBroken as error:
            if self._handing_over:
                wait([self._handing_over], HAND_OVER_SECONDS)
            self._quit(DEVICE_BROKEN_STATUS, str(error))

    def _hand_over(self, held: Held, made: Any, hold: ExitStack) -> None:
        """Keeps what the device made and writes it down, on another thread; then lets go of the request."""

        def hand_over() -> None:
            with hold:
                if isinstance(made, Failure | Lost):
                    self._write(held, made)
                else:
                    self._crash_loop.passed()
                    self._write(held, self._attempt(held, lambda: held.task.keep(made)))

        self._handing_over = self._thread.submit(copy_context().run, hand_over)

    def _wait_for_hand_over(self) -> None:
        """Raises what it raised."""
        ended, self._handing_over = self._handing_over, None
        if ended:
            ended.result()

    def _attempt(self, held: Held, work: Callable[[], T]) -> T | Failure | Lost:
        """Does the work; what it raises is an outcome too. Raises DeviceBroken alone."""
        record = held.record
        try:
            return work()
        except DeviceBroken:
            raise
        except Cancelled as error:
            return Lost(held.lease.lost) if held.lease.lost else Failure(error.code, str(error))
        except (ModelError, WorkerError) as error:
            return Failure(error.code, str(error))
        except Exception:
            log.exception("request %s failed in %s", record.id, record.stage)
            message = f"Something broke on this server; its log tells more under request {record.id}."
            return Failure("internal_error", message)

    def _write(self, held: Held, outcome: Advance | Finish | Failure | Lost) -> None:
        """Writes the outcome in the record, once Redis answers, and how it ended in the log."""
        record, token = held.record, held.token
        try:
            match outcome:
                case Advance(stage, made, weights):
                    bells = _once_redis_answers(
                        lambda: self._work_queue.advance(record.id, token, stage, made, weights)
                    )
                    self._ring(stage, bells)
                    ended = "done"
                case Finish(output):
                    _once_redis_answers(lambda: self._work_queue.finish(record.id, token, output))
                    self._tools.workspace.remove(record.id)
                    ended = "done"
                case Failure(code, message):
                    _once_redis_answers(lambda: self._work_queue.fail(record.id, token, code, message))
                    self._tools.workspace.remove(record.id)
                    ended = code
                case Lost(standing):
                    ended = standing
        except LeaseLost as error:
            ended = error.standing
            # Fenced, another worker's record may name the files; otherwise none will.
            if ended in ("cancelled", "gone"):
                for file_id in record.file_ids:
                    self._tools.storage.delete(file_id)
        if ended in ("cancelled", "gone"):
            # The cancel has cleared it away before, and this stage may have written since.
            self._tools.workspace.remove(record.id)
        seconds = round(time.monotonic() - held.taken_at, 3)
        # What went wrong is in the record: the sentence may quote what the caller wrote.
        extra = {"stage": record.stage, "outcome": ended, "seconds": seconds, "attempt": record.attempt}
        log.info("stage ended", extra=extra)

    def _ring(self, stage: Stage, bells: int) -> None:
        queue = QUEUE_OF[stage]
        try:
            self._bells.ring(queue, bells)
        except RedisError as error:
            # The reconciler rings what is missing within a second.
            log.warning("no bell for the %s queue: %s", queue, error)


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
