"""A thread that notices when the work beside it hangs, since it hears nothing of it for too long."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType


class Watchdog:
    """Within the block, calls `on_stall` on its own thread when `heard` was not called for `seconds`."""

    def __init__(self, seconds: float, on_stall: Callable[[], object]) -> None:
        self._seconds = seconds
        self._on_stall = on_stall
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

    def _watch(self) -> None:
        while self._heard.wait(self._seconds):
            self._heard.clear()
            if self._ended:
                return
        self._on_stall()
