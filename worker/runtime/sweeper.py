"""The thread of an io worker that clears away what is old.

That is requests whose time is over with all that belongs to them, what dead processes left unfinished, and
downloads beyond their share of the disk. However much there is to delete, no beat waits for it.
"""

import logging
import threading

from redis.exceptions import RedisError

from worker.config import DAY_SECONDS, WorkerSettings
from worker.errors import StorageError
from worker.inputs import weight_transfer
from worker.inputs.disk_quota import DiskQuota
from worker.queue.record import FINAL_STATES
from worker.queue.work_queue import WorkQueue
from worker.storage import pictures
from worker.storage.objects import Objects, sweep
from worker.storage.pictures import Storage
from worker.storage.workspace import Workspace

SWEEP_SECONDS = 300.0
EXPIRED_AT_ONCE = 100
ORPHAN_SECONDS = 3600.0
"""A picture is older than its record, which is to go first, or with it."""

log = logging.getLogger(__name__)


class Sweeper:
    """Start it once, stop it once. `work_queue` is on a client of its own."""

    def __init__(self, work_queue: WorkQueue, objects: Objects, settings: WorkerSettings) -> None:
        self._work_queue = work_queue
        self._objects = objects
        self._storage = Storage(objects)
        self._settings = settings
        self._quota = DiskQuota(settings, work_queue.in_line)
        self._workspace = Workspace(objects)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._sweep()
            except (RedisError, StorageError) as error:
                log.warning("what is old is swept later: %s", error)
            except Exception:
                log.exception("the sweeper goes on after an error")
            self._stopped.wait(SWEEP_SECONDS)

    def _sweep(self) -> None:
        while expired := self._work_queue.forget_expired(EXPIRED_AT_ONCE):
            for record in expired:
                for file_id in record.file_ids:
                    self._storage.delete(file_id)
        self._quota.trim()
        # One worker in turn: to list a million pictures in an S3 store takes a thousand calls.
        if self._work_queue.has_turn("sweep", SWEEP_SECONDS):
            self._workspace.sweep(self._is_over)
            for folder in (pictures.FOLDER, weight_transfer.FOLDER):
                longest = self._settings.retention_days * DAY_SECONDS + ORPHAN_SECONDS
                sweep(self._objects, folder, longest)

    def _is_over(self, request_id: str) -> bool:
        record = self._work_queue.get(request_id)
        if record is None or record.state not in FINAL_STATES:
            return record is None
        if record.state != "succeeded":
            # Its worker may have died between the files and the record.
            for file_id in record.file_ids:
                self._storage.delete(file_id)
        return True
