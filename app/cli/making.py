"""What `zturbo generate` tells while it makes a picture: what to expect, the stage in hand, the time left."""

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from app.terminal import tell
from models.duration import duration

if TYPE_CHECKING:
    from app.cli.progress import RequestProgress
    from models.job import Job, Stage, Step

WORDS: "dict[Stage, str]" = {
    "loras": "changing the LoRAs",
    "encode": "reading the prompt",
    "image": "encoding the image",
    "preprocess": "making the control map",
    "control": "encoding the control map",
    "decode": "decoding",
}
"""For each stage but that of the steps, which are counted."""


class Forecast(Protocol):
    """A forecast, which reads as a sentence; the real one is in `models.inference.forecast`."""

    def seconds(self, width: int, height: int, steps: int) -> float: ...


class Making:
    """The pictures of one command, one request after the other; its methods are an engine's callbacks."""

    def __init__(self) -> None:
        self._forecast: Forecast | None = None

    def begin(self, progress: "RequestProgress", job: "Job") -> None:
        """From now on `job` is made, and `progress` shows it."""
        self._progress = progress
        self._job = job
        self._share = 0.0
        self._due: float | None = None

    def on_forecast(self, name: str, forecast: Forecast) -> None:
        self._forecast = forecast
        tell(f"{name} runs {forecast}.", err=True)
        tell(f"This request takes about {duration(self._seconds(forecast))}.", err=True)

    def on_copy(self, done: int, total: int) -> None:
        self._progress.show(
            {"status": "writing smaller weights, once, for later starts", "progress": done / total}
        )

    def on_stage(self, stage: "Stage") -> None:
        if self._due is None and self._forecast:
            self._due = monotonic() + self._seconds(self._forecast)
        # How many steps there are with several pictures is known after the first.
        total = self._job.num_inference_steps - self._job.first_step if self._job.num_images == 1 else None
        self._show(WORDS.get(stage) or _step(1, total))

    def on_step(self, done: "Step") -> None:
        self._share = done.step / done.total
        if done.seconds_left is not None:
            self._due = monotonic() + done.seconds_left
        if done.step < done.total:
            self._show(_step(done.step + 1, done.total))

    def _show(self, words: str) -> None:
        left = None if self._due is None else max(self._due - monotonic(), 0.0)
        self._progress.show({"status": words, "progress": self._share, "eta_seconds": left})

    def _seconds(self, forecast: Forecast) -> float:
        job = self._job
        steps = job.num_inference_steps - job.first_step
        return forecast.seconds(job.width, job.height, steps) * job.num_images


def _step(number: int, total: int | None) -> str:
    return f"step {number} of {total}" if total else f"step {number}"
