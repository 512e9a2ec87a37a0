"""A thread that notices when the work beside it hangs, since it hears nothing of it for too long."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from time import monotonic
from types import TracebackType

STEP_TIMES = 20
"""A step is stuck once it takes so many times the slowest of its picture: all of them have as much to do."""
LEAST_STEP_SECONDS = 60.0
"""No step is stuck before: it may wait for a disk, or for a compiler."""


class Watchdog:
    """Within the block, calls `on_stall` on its own thread when it hears nothing for too long.

    That is `seconds`, or less between the steps of a picture; `on_stall` is told which.
    """

    def __init__(self, seconds: float, on_stall: Callable[[float], object]) -> None:
        self.limit = seconds
        """Seconds of silence that are allowed now."""
        self._seconds = seconds
        self._on_stall = on_stall
        self._stepped_at: float | None = None
        self._slowest = 0.0
        self._heard = threading.Event()
        self._ended = False
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._watch,), name="watchdog", daemon=True
        )

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended = True
        self._heard.set()

    def heard(self) -> None:
        self._heard.set()

    def stepped(self, *, is_last: bool) -> None:
        """A step of a picture has ended. What is before the first and behind the last may take `seconds`."""
        before, self._stepped_at = self._stepped_at, monotonic()
        if before is not None:
            self._slowest = max(self._slowest, self._stepped_at - before)
        self.limit = self._seconds
        # A GPU's first step is told of when it is handed over: one is known from the second on.
        if before is not None and not is_last:
            self.limit = min(self._seconds, max(LEAST_STEP_SECONDS, STEP_TIMES * self._slowest))
        self.heard()

    def _watch(self) -> None:
        while self._heard.wait(limit := self.limit):
            self._heard.clear()
            if self._ended:
                return
        self._on_stall(limit)
