"""A job for the engine and what comes of it: plain values that can be kept as JSON, apart from the pixels.

Nothing here knows of torch, HTTP or Redis.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

MAX_SEED = 2**63 - 1
DEFAULT_STEPS = 8
"""Denoising steps that the published model was distilled to."""

Preprocess = Literal["none", "canny", "depth", "pose"]
OutputFormat = Literal["jpeg", "png", "webp"]
Stage = Literal["loras", "encode", "image", "preprocess", "control", "denoise", "decode"]
"""Of a picture, in the engine."""
Pixels = NDArray[np.uint8]
"""An RGB picture, shape (height, width, 3), values 0 to 255."""
Mask = NDArray[np.bool_]
"""Shape (height, width), true where a picture is drawn anew."""


def is_controlled(step: int, steps: int, control_start: float, control_end: float) -> bool:
    """True when step `step` of `steps`, counted from 0, lies in the window, by the ControlNet convention.

    A step that lies in it only in part is not controlled: 0 to 0.4 of 8 steps are the steps 0, 1 and 2.
    """
    return step / steps >= control_start and (step + 1) / steps <= control_end


def has_controlled_step(steps: int, control_start: float, control_end: float) -> bool:
    return any(is_controlled(step, steps, control_start, control_end) for step in range(steps))


def first_step(steps: int, strength: float) -> int:
    """The step of `steps`, counted from 0, with which image to image begins: all of them at strength 1.

    As diffusers' `ZImageImg2ImgPipeline` has it. At strength 0 it is `steps`, and none is done.
    """
    return int(max(steps - min(steps * strength, steps), 0))


class LoraFile(BaseModel):
    """One LoRA, already on this machine's disk and known to be a safetensors file."""

    model_config = ConfigDict(frozen=True)

    name: str
    """What the caller wrote in `loras[].path`."""
    path: Path
    scale: float
    sha256: str


class Job(BaseModel):
    """Everything one generation needs besides the control pixels; no name is left to resolve."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    width: int
    height: int
    """Pixels, multiples of 16."""
    num_inference_steps: int = DEFAULT_STEPS
    seed: int = 0
    """Already drawn: never -1 here."""
    num_images: int = 1
    seed_variance: float = 0.0
    """How far each picture's seed changes the prompt's embedding, 0 to 1."""
    preprocess: Preprocess = "none"
    """What the engine still has to run on the control pixels (`canny` is done in the prepare stage)."""
    strength: float | None = None
    """How far the picture goes from the image that it starts from, 0 to 1; None when it starts from none."""
    control_scale: float = 0.0
    control_start: float = 0.0
    control_end: float = 1.0
    controlnet: Path | None = None
    controlnet_name: str | None = None
    loras: tuple[LoraFile, ...] = ()
    enable_prompt_expansion: bool = False
    """What the engine still has to do: False where the server at `prompt_llm_url` was asked."""
    expanded_prompt: str | None = None
    """The prompt as that server rewrote it; the picture is made from this one then."""
    warnings: tuple[str, ...] = ()
    """What the caller should know of how the request was understood."""
    image_sha256: str | None = None
    """Digest of the input image's file, in hex; None without one, and in a job of an older version."""
    mask_sha256: str | None = None
    """Digest of the mask's file, in hex; None without one."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture: the job's own, then the numbers after it, and 0 after the largest."""
        return tuple((self.seed + place) % (MAX_SEED + 1) for place in range(self.num_images))

    @property
    def first_step(self) -> int:
        """The steps that are left out at the beginning, for what the picture starts from stands for them."""
        return 0 if self.strength is None else first_step(self.num_inference_steps, self.strength)

    @property
    def is_controlled(self) -> bool:
        """True when any step runs with a control branch; the window is a share of the steps that are done."""
        window = self.num_inference_steps - self.first_step, self.control_start, self.control_end
        return self.controlnet is not None and self.control_scale > 0 and has_controlled_step(*window)


class Start(NamedTuple):
    """What a picture starts from, of its size."""

    image: Pixels
    mask: Mask | None = None
    """None: all of the image may change."""


class Step(NamedTuple):
    """One finished denoising step: `step` of `total`, counted from 1."""

    step: int
    total: int
    preview: Callable[[], Pixels] | None = None
    """Makes a small picture of what comes out, several side by side; call it during the step's callback only.
    On a GPU it shows the step before. None: there is none to show."""
    seconds_left: float | None = None
    """The time until the pixels are there, an estimate; None: nothing is known."""


OnStep = Callable[[Step], None]
"""Called after each step on the generating thread; raise `models.errors.Cancelled` in it to stop."""
OnStage = Callable[[Stage], None]
"""Called as each stage begins, on the generating thread; what it raises stops that."""
KeepGoing = Callable[[], None]
"""Called now and then while something takes long; what it raises stops that."""


def go_on() -> None:
    """The `KeepGoing` of who has nothing to stop."""


class AppliedLora(BaseModel):
    """What became of one LoRA: how many of its keys found a weight in the model."""

    name: str
    scale: float
    sha256: str
    matched: int
    unmatched: int
    format: str


class Facts(BaseModel):
    """Everything about the pictures of one job but their pixels."""

    model_config = ConfigDict(frozen=True)

    model: str
    dtype: str | None = None
    """Precision of its weights, such as bfloat16 or int8; None in a record of an older version."""
    fast_path: str | None = None
    """How the blocks ran: `eager`, `compiled`, …; None in a record of an older version."""
    seeds: tuple[int, ...]
    """One for each picture."""
    prompt: str
    expanded_prompt: str | None = None
    strength: float | None = None
    """As asked for; None when the picture starts from no image."""
    controlnet: str | None = None
    """Name of the control branch; None when none ran."""
    loras: tuple[AppliedLora, ...] = ()
    timings: dict[str, float] = {}
    """Seconds by `Stage`."""
    warnings: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_one_seed(cls, data: Any) -> Any:
        """Records of version 1 knew one picture, and its `seed`."""
        return {"seeds": [data["seed"]], **data} if "seed" in data else data


@dataclass(frozen=True)
class Generated:
    """What a job came to: a picture for each of `facts.seeds`."""

    images: tuple[Pixels, ...]
    control_image: Pixels | None
    """The control map as the model saw it; None when no control branch ran."""
    facts: Facts
