"""What a worker process of a test runs: the real worker with a tiny engine.

The engine draws a grey picture in as many short sleeps as the job has steps. A word in the prompt makes it
misbehave. Each start and end of a picture is a line in DATA_DIR/engine.log.
"""

import logging
import os
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.config import ModelSettings
from models.errors import BadOutput, DeviceBroken, WeightsMissing
from models.job import Facts, Generated, Job, KeepGoing, OnStep, Pixels, Preprocess, Start, Step
from models.prompt.expansion import Expansion
from worker.config import WorkerSettings
from worker.queue.keys import Queue
from worker.runtime.process import run_worker


class SleepingEngine:
    name = "sleeping"
    path = None
    device = "none"
    counts: ClassVar[dict[str, int]] = {}

    def __init__(self, settings: ModelSettings) -> None:
        if settings.device == "cuda":
            raise WeightsMissing("There is no such weight; run `zturbo pull`.")
        self._log = settings.data_dir / "engine.log"
        self._step_seconds = float(os.environ.get("TEST_STEP_SECONDS", "0.02"))

    def expand(self, prompt: str, seed: int, keep_going: KeepGoing) -> Expansion:
        return Expansion(prompt=f"{prompt}, asleep")

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
        assert (control is None) == ("no image" in job.prompt)
        self._note(f"begin {job.seed}")
        if "explode" in job.prompt:
            raise RuntimeError("a secret path: /root")
        if "refuse" in job.prompt:
            raise BadOutput("The picture is all black.")
        if "break" in job.prompt:
            raise DeviceBroken(
                "The GPU failed and needs a new process: CUDA error: unspecified launch failure"
            )
        if "hang" in job.prompt:
            time.sleep(60)
        if "linger" in job.prompt:
            # As one step of a slow processor.
            for _ in range(8):
                time.sleep(0.1)
                keep_going()
        if "die" in job.prompt:
            os._exit(1)
        for step in range(1, job.num_inference_steps + 1):
            time.sleep(self._step_seconds)
            on_step(Step(step, job.num_inference_steps, lambda: np.zeros((8, 8, 3), np.uint8)))
        self._note(f"end {job.seed}")
        shape = (job.height, job.width, 3)
        control_map = control if "map" in job.prompt else None
        images = tuple(np.full(shape, seed % 256, dtype=np.uint8) for seed in job.seeds)
        return Generated(images, control_map, Facts(model=self.name, seeds=job.seeds, prompt=job.prompt))

    def _note(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{line}\n")


def main(kind: Queue, env: dict[str, str], log: Path) -> None:
    """Ends as the worker ends; what it prints goes to `log`."""
    os.environ.update(env)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(process)d %(asctime)s %(name)s %(message)s")
    settings = WorkerSettings(_env_file=None)
    run_worker(kind, settings, settings.redis_url or "", SleepingEngine)


if __name__ == "__main__":
    main("gpu", {}, Path(sys.argv[1]))
