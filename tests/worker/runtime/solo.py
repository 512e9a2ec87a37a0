"""What a single consumer in a test's own process works with."""

from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from models.job import Facts, Generated, Job, KeepGoing, OnStep, Pixels, Preprocess, Start, Step
from models.prompt.expansion import Expansion
from tests.worker.runtime.crew import IMAGE
from worker.config import WorkerSettings

BODY: dict[str, Any] = {
    "prompt": "a fox", "image_url": IMAGE, "loras": [], "image_size": "square", "control_scale": 0.9,
    "control_start": 0.0, "control_end": 0.4, "preprocess": "none", "num_inference_steps": 2, "seed": 7,
    "enable_prompt_expansion": False, "output_format": "png",
}  # fmt: skip


class GreyEngine:
    name = "grey"
    path = None
    device = "none"
    counts: ClassVar[dict[str, int]] = {}

    def expand(self, prompt: str, seed: int, keep_going: KeepGoing) -> Expansion:
        return Expansion(prompt=f"{prompt}, grey, {seed}")

    def control_map(self, preprocess: Preprocess, source: Pixels, keep_going: KeepGoing) -> Pixels:
        return 255 - source

    def generate(
        self,
        job: Job,
        control: Pixels | None,
        on_step: OnStep,
        start: Start | None = None,
        *,
        keep_going: KeepGoing,
    ) -> Generated:
        on_step(Step(1, 1))
        images = tuple(np.full((16, 16, 3), 9, np.uint8) for _ in job.seeds)
        return Generated(images, None, Facts(model=self.name, seeds=job.seeds, prompt=job.prompt))


def never(status: int, reason: str) -> NoReturn:
    raise AssertionError(reason)


def files(settings: WorkerSettings) -> list[Path]:
    return [path for path in (settings.data_dir / "outputs").rglob("*") if path.is_file()]
