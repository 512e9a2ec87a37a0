"""A real gpu worker whose engine sleeps as long as a picture takes: `python -m benchmarks.server.sleeper`.

The picture is like a photo, at 1024x1024. Begin and end of each is a line in DATA_DIR/engine.log: `begin` or
`end`, the seed, the time by the clock that all processes share.
"""

import logging
import time
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from benchmarks.chaos.worker import SleepingEngine
from models.config import ModelSettings
from models.job import Facts, Generated, Job, KeepGoing, OnStep, Pixels, Start, Step
from worker.config import WorkerSettings
from worker.queue.connection import DEFAULT_REDIS_URL
from worker.runtime.process import run_worker

PICTURE_SECONDS = 0.3
SIZE = 1024
LOG = "engine.log"


def photo() -> Pixels:
    """(1024, 1024, 3): as rough as a camera's, so that its PNG is as long and as slow."""
    astronaut: Pixels = data.astronaut()  # type: ignore[no-untyped-call]
    image = cv2.resize(astronaut, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, 2, size=image.shape)
    grainy: Pixels = np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)
    return grainy


class PhotoEngine(SleepingEngine):
    def __init__(self, settings: ModelSettings) -> None:
        self._log = settings.data_dir / LOG
        self._photo = photo()

    def generate(
        self,
        job: Job,
        control: Pixels | None,
        on_step: OnStep,
        start: Start | None = None,
        *,
        keep_going: KeepGoing,
    ) -> Generated:
        steps, begun = job.num_inference_steps, time.monotonic()
        self._note("begin", job.seed)
        for step in range(1, steps + 1):
            # To a point in time: what a sleep overruns its time is the machine's, and does not add up.
            time.sleep(max(0, begun + step * PICTURE_SECONDS / steps - time.monotonic()))
            on_step(Step(step, steps))
        self._note("end", job.seed)
        return Generated((self._photo,), None, Facts(model=self.name, seeds=job.seeds, prompt=job.prompt))

    def _note(self, what: str, seed: int) -> None:
        with self._log.open("a") as log:
            log.write(f"{what} {seed} {time.monotonic()}\n")


def read_log(data_dir: Path) -> list[tuple[str, int, float]]:
    lines = (line.split() for line in (data_dir / LOG).read_text().splitlines())
    return [(what, int(seed), float(at)) for what, seed, at in lines]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    settings = WorkerSettings()
    run_worker("gpu", settings, settings.redis_url or DEFAULT_REDIS_URL, PhotoEngine)
