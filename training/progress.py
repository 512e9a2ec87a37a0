"""One stage's training run: its clock, its log and its checkpoint, so that a killed run goes on where it was.

A stage lasts a number of minutes of training rather than of steps, and its learning rate follows the
fraction that has passed: the same command does its best on a busy laptop and on a GPU.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import torch

SAVE_EVERY_S: Final = 60.0
LOG_EVERY_S: Final = 10.0
LONGEST_STEP_S: Final = 20.0
"""What one step counts for at most: a process that was stopped for a while did not train meanwhile."""


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Progress:
    """Counts the minutes of one stage. Everything in `state` is saved each minute and restored at the
    start.
    """

    def __init__(self, folder: Path, stage: str, minutes: float, state: dict[str, Stateful]) -> None:
        self._path = folder / f"{stage}.ckpt"
        self._log = folder / "log.jsonl"
        self._stage = stage
        self._seconds = minutes * 60
        self._state = state
        self._sums: dict[str, tuple[float, int]] = {}
        self.elapsed = 0.0
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            saved = torch.load(self._path, weights_only=True)
            self.elapsed, self.step = saved["elapsed"], saved["step"]
            for name, part in state.items():
                part.load_state_dict(saved[name])

    @property
    def fraction(self) -> float:
        return min(self.elapsed / self._seconds, 1.0)

    def steps(self) -> Iterator[float]:
        """Yields the fraction that has passed, once per training step, until the time is up; saves as it
        goes.
        """
        saved = logged = self.elapsed
        last = time.monotonic()
        while self.elapsed < self._seconds:
            yield self.fraction
            now = time.monotonic()
            self.elapsed += min(now - last, LONGEST_STEP_S)
            last = now
            self.step += 1
            if self.elapsed - logged > LOG_EVERY_S:
                self._write_log()
                logged = self.elapsed
            if self.elapsed - saved > SAVE_EVERY_S:
                self.save()
                saved = self.elapsed
        self._write_log()
        self.save()

    def record(self, **values: torch.Tensor | float) -> None:
        """Adds to the running means that the log gets."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + float(value), count + 1)

    def save(self) -> None:
        """Writes the checkpoint at once and whole."""
        state = {name: part.state_dict() for name, part in self._state.items()}
        partial = self._path.with_suffix(".partial")
        torch.save({"elapsed": self.elapsed, "step": self.step, **state}, partial)
        partial.replace(self._path)

    def _write_log(self) -> None:
        means = {name: round(total / count, 5) for name, (total, count) in self._sums.items()}
        line = {"stage": self._stage, "step": self.step, "minutes": round(self.elapsed / 60, 2), **means}
        with self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        self._sums = {}


def learning_rate(fraction: float, peak: float, step: int, warm_up: int = 100, hold: float = 0.5) -> float:
    """Linear warm-up over steps, then the peak, then linearly down to a hundredth from `hold` of the time
    on.
    """
    warm = min(1.0, (step + 1) / warm_up)
    fall = 1.0 if fraction < hold else 1 - 0.99 * (fraction - hold) / (1 - hold)
    return peak * warm * fall


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
