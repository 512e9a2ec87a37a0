"""A real gpu worker of the chaos run whose engine sleeps: `python -m benchmarks.chaos.worker`.

The picture is one grey, the request's seed modulo 256, so that its file tells whose it is.
"""

import logging
import time
from typing import ClassVar

import numpy as np

from models.config import ModelSettings
from models.errors import BadOutput
from models.job import Facts, Generated, Job, KeepGoing, OnStep, Pixels, Preprocess, Start, Step
from models.prompt.expansion import Expansion, declined
from worker.config import WorkerSettings
from worker.queue.connection import DEFAULT_REDIS_URL
from worker.runtime.process import run_worker

STEP_SECONDS = 0.01
FAILS = "this one fails"
"""A prompt that the engine refuses."""


class SleepingEngine:
    name = "sleeping"
    path = None
    device = "none"
    counts: ClassVar[dict[str, int]] = {}

    def __init__(self, settings: ModelSettings) -> None:
        """Nothing is loaded."""

    def expand(self, prompt: str, seed: int, keep_going: KeepGoing) -> Expansion:
        return declined("this engine only sleeps")

    def control_map(self, preprocess: Preprocess, source: Pixels, keep_going: KeepGoing) -> Pixels:
        return source

    def generate(
        self,
        job: Job,
        control: Pixels | None,
        on_step: OnStep,
        start: Start | None = None,
        *,
        keep_going: KeepGoing,
    ) -> Generated:
        for step in range(1, job.num_inference_steps + 1):
            time.sleep(STEP_SECONDS)
            on_step(Step(step, job.num_inference_steps))
        if job.prompt == FAILS:
            raise BadOutput("The picture is all black.")
        image = np.full((job.height, job.width, 3), job.seed % 256, dtype=np.uint8)
        return Generated((image,), None, Facts(model=self.name, seeds=job.seeds, prompt=job.prompt))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    settings = WorkerSettings()
    run_worker("gpu", settings, settings.redis_url or DEFAULT_REDIS_URL, SleepingEngine)
