"""The stages of one job's pictures: each is told as it begins, and how long it took is kept."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models.job import OnStage, Stage


class Stages:
    """`synchronize` waits until the device has done what it was given."""

    def __init__(self, on_stage: OnStage, synchronize: Callable[[], None]) -> None:
        self.timings: dict[str, float] = {}
        """Seconds of each stage that is over."""
        self._on_stage = on_stage
        self._synchronize = synchronize

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Within the block the stage runs."""
        self._on_stage(stage)
        started = time.perf_counter()
        yield
        self._synchronize()
        self.timings[stage] = time.perf_counter() - started
