"""A worker's hold on one request: kept alive from a thread of its own while another does the work."""

import logging
import threading
import time
from contextvars import copy_context
from types import TracebackType
from typing import Literal

from redis.exceptions import RedisError

from models.errors import Cancelled
from models.job import Pixels, Step
from worker.encoding.encode import encode_preview
from worker.queue.work_queue import WorkQueue

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 6
"""Five beats may be lost before the lease is."""


class Lease:
    """Beats until it is left. `work_queue` must not share its connection with the thread that works."""

    def __init__(self, work_queue: WorkQueue, request_id: str, token: str, lease_seconds: float) -> None:
        self.lost: Literal["gone", "cancelled", "fenced"] | None = None
        """Why the request is no longer ours, once that is known."""
        self._work_queue = work_queue
        self._request_id = request_id
        self._token = token
        self._interval = lease_seconds / BEATS_PER_LEASE
        self._step = Step(0, 0)
        self._stepped_at = 0.0
        self._watched = False
        self._preview: Pixels | None = None
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._beat,), name="lease", daemon=True
        )

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended = True
        self._wake.set()

    def on_step(self, step: Step) -> None:
        """Tells the progress, without waiting for Redis. Raises as `check` does."""
        self._step, self._stepped_at = step, time.monotonic()
        if self._watched and step.preview:
            # Here, where the device is free; the rest is for the other thread.
            self._preview = step.preview()
        self._wake.set()
        self.check()

    def check(self) -> None:
        """Raises Cancelled when the request is no longer ours."""
        if self.lost:
            raise Cancelled(f"The request was taken away from this worker ({self.lost}).")

    def _beat(self) -> None:
        self._look()
        while True:
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._ended:
                return
            try:
                preview, self._preview = self._preview, None
                picture = b"" if preview is None else encode_preview(preview)
                told = *self._step[:2], picture, self._seconds_left()
                standing = self._work_queue.beat(self._request_id, self._token, *told)
            except RedisError as error:
                log.warning("no beat: %s", error)
                continue
            if standing in ("gone", "cancelled", "fenced"):
                self.lost = standing
                return
            self._look()

    def _seconds_left(self) -> float | None:
        """Of the last step's estimate, what is left of it now: the beat may have been kept waiting."""
        seconds = self._step.seconds_left
        return None if seconds is None else max(0.0, seconds - (time.monotonic() - self._stepped_at))

    def _look(self) -> None:
        """Whether a preview of the next step is wanted."""
        try:
            self._watched = self._work_queue.is_watched(self._request_id)
        except RedisError:
            self._watched = False
