"""What a worker does for each stage of a record: the plain function between what is kept before and after it.

Every method returns the move that writes what came of it, to be made as soon as Redis answers. Those of the
gpu queue return first how to keep what the device made, so that the device need not wait for disk and Redis.
Each may raise ModelError, WorkerError, and `Cancelled` by the lease.
"""

import logging
from collections.abc import Callable
from typing import Any, NoReturn

from redis.exceptions import RedisError

from models.job import Job, Step
from models.prompt.expansion import Expansion
from models.prompt.server import expand_by_server
from models.schema.inputs import AnyInput, PreprocessInput
from worker.config import WorkerSettings
from worker.errors import LeaseLost
from worker.handover import facts_of, pictures_of
from worker.inputs.weight_transfer import Adapters
from worker.queue.affinity import NO_WEIGHTS, Weights, needed_by
from worker.queue.doorbell import Bells, Queue
from worker.queue.lease import Lease
from worker.queue.work_queue import CONTROL_MAP, EXPAND, Record, Records, Stage
from worker.stages.picture import Engine, control_source, finish, image_stems, keep_control, prepare
from worker.stages.watchdog import Watchdog
from worker.storage.objects import Objects
from worker.storage.pictures import Storage, new_file_id
from worker.storage.workspace import Workspace

log = logging.getLogger(__name__)

Write = Callable[[], None]
Keep = Callable[[], Write]

STALLED_STATUS = 71
"""What a worker process ends with when a device hangs."""


class Work:
    """The stages of one worker's queue."""

    def __init__(
        self,
        records: Records,
        bells: Bells,
        settings: WorkerSettings,
        objects: Objects,
        engine: Engine | None,
        quit: Callable[[int, str], NoReturn],
        on_picture: Callable[[], None],
    ) -> None:
        """`engine` is for the gpu queue; `quit` as `Life` has it."""
        self.held = NO_WEIGHTS
        """What the engine was last given beside the model."""
        self._records = records
        self._bells = bells
        self._settings = settings
        self._storage = Storage(objects)
        self._engine = engine
        self._quit = quit
        self._on_picture = on_picture
        self._workspace = Workspace(objects)
        self._adapters = Adapters(objects, settings)

    def on_cpu(self, record: Record, token: str, lease: Lease) -> Write:
        """A stage of the io queue."""
        if record.model_id == EXPAND:
            return self._expand_by_server(record, token)
        if record.model_id == CONTROL_MAP:
            prepare_or_finish = {"prepare": self._prepare_map, "finish": self._finish_map}
        else:
            prepare_or_finish = {"prepare": self._prepare, "finish": self._finish}
        return prepare_or_finish[record.stage](record, token, lease)

    def on_device(self, record: Record, token: str, lease: Lease) -> Keep:
        """The stage of the gpu queue. Raises DeviceBroken too."""
        assert self._engine is not None  # noqa: S101 - only the gpu queue comes here
        if record.model_id == EXPAND:
            return self._expand(self._engine, record, token)
        if record.model_id == CONTROL_MAP:
            return self._generate_map(self._engine, record, token)
        return self._generate(self._engine, record, token, lease)

    def forget(self, request_id: str) -> None:
        """Clears away what a request needed on its way."""
        self._workspace.remove(request_id)

    def _prepare(self, record: Record, token: str, lease: Lease) -> Write:
        request = AnyInput.model_validate(self._workspace.whole_input(record.id, record.input))
        job, control = prepare(request, self._settings, self._storage, lease.check)
        made = {
            "job": job.model_dump(mode="json"),
            "sent": self._adapters.send(job),
            "control": None if control is None else self._workspace.save(record.id, token, control),
        }
        needed = needed_by(job, self._settings.controlnet)
        return lambda: self._advance(record, token, "generate", made, needed)

    def _generate(self, engine: Engine, record: Record, token: str, lease: Lease) -> Keep:
        job = Job.model_validate(record.prepared["job"])
        job = self._adapters.receive(job, record.prepared.get("sent", {}), lease.check)
        self.held = self.held.after(needed_by(job, self._settings.controlnet))
        name = record.prepared["control"]
        control = self._workspace.load(record.id, name) if name else None
        with self._watchdog(record) as watchdog:

            def on_step(step: Step) -> None:
                watchdog.heard()
                lease.on_step(step)

            pictures = engine.generate(job, control, on_step)

        def keep() -> Write:
            self._on_picture()
            made = facts_of(pictures)
            for stem, picture in zip(image_stems(len(pictures)), pictures, strict=True):
                made[stem] = self._workspace.save(record.id, token, picture.image, stem)
            if (control_image := pictures[0].control_image) is not None:
                made["control_image"] = self._workspace.save(record.id, token, control_image, "control")
            return lambda: self._advance(record, token, "finish", made)

        return keep

    def _finish(self, record: Record, token: str, lease: Lease) -> Write:
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

    def _expand_by_server(self, record: Record, token: str) -> Write:
        """Of an expansion: where a server does it no GPU is needed."""
        if self._settings.prompt_llm_url is None:
            return lambda: self._advance(record, token, "generate", {})
        return self._expanded(record, token, expand_by_server(self._settings, **record.input))

    def _expand(self, engine: Engine, record: Record, token: str) -> Keep:
        with self._watchdog(record):
            expansion = engine.expand(**record.input)
        return lambda: self._expanded(record, token, expansion)

    def _expanded(self, record: Record, token: str, expansion: Expansion) -> Write:
        output = {"expanded_prompt": expansion.prompt, "warning": expansion.warning}
        return lambda: self._records.finish(record.id, token, output)

    def _prepare_map(self, record: Record, token: str, lease: Lease) -> Write:
        asked = PreprocessInput.model_validate(self._workspace.whole_input(record.id, record.input))
        source = control_source(asked, self._settings, self._storage)
        made = {"control": self._workspace.save(record.id, token, source)}
        return lambda: self._advance(record, token, "generate", made)

    def _generate_map(self, engine: Engine, record: Record, token: str) -> Keep:
        source = self._workspace.load(record.id, record.prepared["control"])
        with self._watchdog(record):
            control_image = engine.control_map(record.input["preprocess"], source)

        def keep() -> Write:
            self._on_picture()
            name = self._workspace.save(record.id, token, control_image)
            made = {"control_image": name, "file_ids": {"control_image": new_file_id()}}
            return lambda: self._advance(record, token, "finish", made)

        return keep

    def _finish_map(self, record: Record, token: str, lease: Lease) -> Write:
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
