"""One request at a time off a worker's queue, each seen through its stage to a record that tells the outcome.

Whatever a stage raises ends in the record; nothing a request does takes the worker with it silently.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from redis.exceptions import RedisError

from models.errors import Cancelled, DeviceBroken, ModelError
from models.expansion import Expansion
from models.inputs import AnyInput, PreprocessInput
from models.job import Job, Step
from models.prompt_server import expand_by_server
from worker.adapters import Adapters
from worker.affinity import NO_WEIGHTS, Weights, needed_by
from worker.config import WorkerSettings
from worker.errors import LeaseLost, WorkerError
from worker.handover import facts_of, pictures_of
from worker.lease import Lease
from worker.logs import about
from worker.objects import Objects
from worker.queue import Bells, Queue
from worker.records import CONTROL_MAP, EXPAND, Record, Records, Stage
from worker.stages import Engine, control_source, finish, image_stems, keep_control, prepare
from worker.storage import Storage, new_file_id
from worker.store import is_away
from worker.watchdog import Watchdog
from worker.workspace import Workspace

log = logging.getLogger(__name__)

T = TypeVar("T")

StageWork = Callable[[Record, str, Lease], Callable[[], None]]
"""A stage of a request in this worker's hands, by its token; returns the move that writes what came of it."""

DRAIN_SECONDS = 600.0
"""A worker answers a bell this long at most, then lets RQ look after itself; the reconciler rings again."""

AWAY_PAUSE_SECONDS = 0.5

DEVICE_BROKEN_STATUS = 70
STALLED_STATUS = 71
"""What a worker process ends with that only a new one can replace."""


@dataclass(frozen=True)
class Holding:
    """A request in this worker's hands."""

    request_id: str
    token: str


class Life:
    """What one worker does with the requests of its queue."""

    def __init__(
        self,
        queue: Queue,
        worker_id: str,
        records: Records,
        beats: Records,
        bells: Bells,
        settings: WorkerSettings,
        objects: Objects,
        engine: Engine | None,
        quit: Callable[[int, str], NoReturn],
        on_picture: Callable[[], None],
    ) -> None:
        """`beats` is on a client of its own, for the lease's thread; `engine` is for the gpu queue.

        `quit` gives up what is in hand and ends the process with a status, for a reason; it may be called
        on any thread.
        """
        self.holding: Holding | None = None
        self._queue = queue
        self._worker_id = worker_id
        self._records = records
        self._beats = beats
        self._bells = bells
        self._settings = settings
        self._storage = Storage(objects)
        self._engine = engine
        self._quit = quit
        self._on_picture = on_picture
        self._workspace = Workspace(objects)
        self._adapters = Adapters(objects, settings)
        self._token = _new_token()
        self._held = NO_WEIGHTS

    def drain(self, stopping: threading.Event) -> None:
        """Takes requests until none waits, it is time to stop, or the bell was answered long enough."""
        end = time.monotonic() + DRAIN_SECONDS
        while not stopping.is_set() and time.monotonic() < end:
            # Kept when this raises: the request that was handed out by a lost reply is then asked for again.
            record = self._records.next(self._queue, self._token, self._worker_id, self._held)
            token, self._token = self._token, _new_token()
            if record is None:
                return
            self.holding = Holding(record.id, token)
            try:
                if stopping.is_set():
                    self._records.release(record.id, token)
                else:
                    self._see_through(record, token)
            finally:
                self.holding = None

    def _see_through(self, record: Record, token: str) -> None:
        stages = {"prepare": self._prepare, "generate": self._generate, "finish": self._finish}
        if record.model_id == EXPAND:
            stages = {"prepare": self._expand_by_server, "generate": self._expand}
        elif record.model_id == CONTROL_MAP:
            stages = {
                "prepare": self._prepare_map,
                "generate": self._generate_map,
                "finish": self._finish_map,
            }
        stage = stages[record.stage]
        started = time.monotonic()
        with about(record.id), Lease(self._beats, record.id, token, self._settings.lease_seconds) as lease:
            try:
                outcome, close = self._outcome(stage, record, token, lease)
                _once_redis_answers(close)
            except LeaseLost as error:
                outcome = error.standing
            took = {"seconds": round(time.monotonic() - started, 3), "attempt": record.attempt}
            # What went wrong is in the record: the sentence may quote what the caller wrote.
            log.info("stage ended", extra={"stage": record.stage, "outcome": outcome, **took})

    def _outcome(
        self,
        stage: StageWork,
        record: Record,
        token: str,
        lease: Lease,
    ) -> tuple[str, Callable[[], None]]:
        """Runs the stage; returns how it ended, `done` or an error's code, and the move that writes it."""
        try:
            return "done", stage(record, token, lease)
        except Cancelled as error:
            if lease.lost:
                raise LeaseLost(f"Request {record.id}: {error}", lease.lost) from error
            return error.code, self._failure(record, token, error.code, str(error))
        except DeviceBroken as error:
            self._quit(DEVICE_BROKEN_STATUS, str(error))
        except (ModelError, WorkerError) as error:
            return error.code, self._failure(record, token, error.code, str(error))
        except Exception:
            log.exception("request %s failed in %s", record.id, record.stage)
            message = f"Something broke on this server; its log tells more under request {record.id}."
            return "internal_error", self._failure(record, token, "internal_error", message)

    def _failure(self, record: Record, token: str, code: str, message: str) -> Callable[[], None]:
        def fail() -> None:
            self._records.fail(record.id, token, code, message)
            self._workspace.remove(record.id)

        return fail

    def _prepare(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        request = AnyInput.model_validate(self._workspace.whole_input(record.id, record.input))
        job, control = prepare(request, self._settings, self._storage, lease.check)
        made = {
            "job": job.model_dump(mode="json"),
            "sent": self._adapters.send(job),
            "control": None if control is None else self._workspace.save(record.id, token, control),
        }
        needed = needed_by(job, self._settings.controlnet)
        return lambda: self._advance(record, token, "generate", made, needed)

    def _generate(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        assert self._engine is not None  # noqa: S101 - only the gpu queue has this stage
        job = Job.model_validate(record.prepared["job"])
        job = self._adapters.receive(job, record.prepared.get("sent", {}), lease.check)
        self._held = self._held.after(needed_by(job, self._settings.controlnet))
        name = record.prepared["control"]
        control = self._workspace.load(record.id, name) if name else None
        with self._watchdog(record) as watchdog:

            def on_step(step: Step) -> None:
                watchdog.heard()
                lease.on_step(step)

            pictures = self._engine.generate(job, control, on_step)
        self._on_picture()
        made = facts_of(pictures)
        for stem, picture in zip(image_stems(len(pictures)), pictures, strict=True):
            made[stem] = self._workspace.save(record.id, token, picture.image, stem)
        if pictures[0].control_image is not None:
            made["control_image"] = self._workspace.save(
                record.id, token, pictures[0].control_image, "control"
            )
        return lambda: self._advance(record, token, "finish", made)

    def _finish(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        job = Job.model_validate(record.prepared["job"])
        pictures = pictures_of(record.generated, lambda name: self._workspace.load(record.id, name))
        body = self._workspace.whole_input(record.id, record.input)
        file_ids = record.generated["file_ids"]
        output = finish(record.model_id, body, job, pictures, file_ids, self._settings, self._storage)
        return lambda: self._close(record, token, output)

    def _close(self, record: Record, token: str, output: dict[str, Any]) -> None:
        try:
            self._records.finish(record.id, token, output)
        except LeaseLost as error:
            # Fenced, another worker's record may name these files; cancelled, none will.
            if error.standing == "cancelled":
                for file_id in record.generated["file_ids"].values():
                    self._storage.delete(file_id)
            raise
        self._workspace.remove(record.id)

    def _expand_by_server(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        """Of an expansion: where a server does it no GPU is needed."""
        if self._settings.prompt_llm_url is None:
            return lambda: self._advance(record, token, "generate", {})
        return self._expanded(record, token, expand_by_server(self._settings, **record.input))

    def _expand(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        assert self._engine is not None  # noqa: S101 - only the gpu queue has this stage
        with self._watchdog(record):
            return self._expanded(record, token, self._engine.expand(**record.input))

    def _expanded(self, record: Record, token: str, expansion: Expansion) -> Callable[[], None]:
        output = {"expanded_prompt": expansion.prompt, "warning": expansion.warning}
        return lambda: self._records.finish(record.id, token, output)

    def _prepare_map(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        asked = PreprocessInput.model_validate(self._workspace.whole_input(record.id, record.input))
        source = control_source(asked, self._settings, self._storage)
        made = {"control": self._workspace.save(record.id, token, source)}
        return lambda: self._advance(record, token, "generate", made)

    def _generate_map(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        assert self._engine is not None  # noqa: S101 - only the gpu queue has this stage
        source = self._workspace.load(record.id, record.prepared["control"])
        with self._watchdog(record):
            control_image = self._engine.control_map(record.input["preprocess"], source)
        self._on_picture()
        name = self._workspace.save(record.id, token, control_image)
        made = {"control_image": name, "file_ids": {"control_image": new_file_id()}}
        return lambda: self._advance(record, token, "finish", made)

    def _finish_map(self, record: Record, token: str, lease: Lease) -> Callable[[], None]:
        control_image = self._workspace.load(record.id, record.generated["control_image"])
        file_id = record.generated["file_ids"]["control_image"]
        output = {"control_image": keep_control(control_image, file_id, self._storage)}
        return lambda: self._close(record, token, output)

    def _watchdog(self, record: Record) -> Watchdog:
        silence = self._settings.stall_seconds

        def stalled() -> None:
            self._quit(STALLED_STATUS, f"Request {record.id} has made no step for {silence:g} s.")

        return Watchdog(silence, stalled)

    def _advance(
        self, record: Record, token: str, stage: Stage, made: dict[str, Any], needed: Weights | None = None
    ) -> None:
        bells = self._records.advance(record.id, token, stage, made, needed)
        queue: Queue = "gpu" if stage == "generate" else "io"
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
