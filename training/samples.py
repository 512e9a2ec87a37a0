"""Prompts and control maps that the demo model's training never saw, and the sheet of what it makes of
some.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from models.job import Pixels
from training.captions import caption
from training.control_data import control_scene
from training.maps import CONTROLS, Control, control_map
from training.render import render
from training.scenes import Scene, sample_scene
from training.sheet import grid, write_png
from training.vocabulary import COLOURS, GROUNDS, HELD_OUT_SEEDS, OBJECTS, SKIES

LORA_PROMPTS: Final = tuple(
    f"a {colour} {words[0]} {list(GROUNDS.values())[at % 4][0]} {list(SKIES.values())[at // 2 % 4][0]}"
    for at, (colour, words) in enumerate(zip(COLOURS, OBJECTS.values(), strict=True))
)
_UNSEEN_EVERY: Final = 3
_SHEET_ROWS: Final = 2


class Draws(Protocol):
    size: int

    def draw(
        self, prompt: str, seed: int, control: Pixels | None = None, scale: float = 0.0,
        controlnet: str = "controlnet", style: str | None = None, style_scale: float = 1.0,
    ) -> Pixels: ...  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A scene that training never saw, its prompt, and a control map where one is asked for."""

    scene: Scene
    prompt: str
    unseen_pair: bool
    """Whether its colour and object never came together in training."""
    control: NDArray[np.uint8]
    joints: NDArray[np.float32]
    """The figure's, fractions of width and height, (18, 2); zeros without one."""


_NO_MAP: Final = np.zeros((0, 0, 3), np.uint8)
_NO_JOINTS: Final = np.zeros((18, 2), np.float32)


def prompt_samples(count: int) -> list[Sample]:
    """Single things with full captions; every third shows a combination that training never had."""
    samples = []
    for at in range(count):
        unseen = at % _UNSEEN_EVERY == 0
        scene = sample_scene(HELD_OUT_SEEDS + at, pairs=0, figures=1 / len(OBJECTS), held_out=unseen)
        prompt = caption(scene, np.random.default_rng((scene.seed, 0)))
        samples.append(Sample(scene, prompt, unseen, _NO_MAP, _NO_JOINTS))
    return samples


def control_samples(control: Control, count: int, size: int) -> list[Sample]:
    """Scenes with their map; the prompt does not say where or how large a thing is or how a figure stands."""
    samples = []
    for at in range(count):
        scene = control_scene(control, HELD_OUT_SEEDS + 10_000 + at)
        rendering = render(scene, size, size)
        named = [f"a {thing.colour} {OBJECTS[thing.kind][0]}" for thing in scene.things]
        prompt = f"{' and '.join(named)} {GROUNDS[scene.ground][0]} {SKIES[scene.sky][0]}"
        joints = _NO_JOINTS if rendering.joints is None else rendering.joints / np.float32(size)
        samples.append(Sample(scene, prompt, False, control_map(rendering, control), joints))
    return samples


def write_sheet(path: Path, model: Draws) -> None:
    """Rows of: control map, without it, with it, and with a LoRA on top; three kinds of map, two rows of
    each.
    """
    rows = []
    for control in CONTROLS:
        for at, sample in enumerate(control_samples(control, _SHEET_ROWS, model.size)):
            style = ("blueprint", "night")[at % 2]
            rows += [
                sample.control,
                model.draw(sample.prompt, at),
                model.draw(sample.prompt, at, sample.control, 0.9),
                model.draw(sample.prompt, at, sample.control, 0.9, style=style),
            ]
    prompts = [model.draw(prompt, at) for at, prompt in enumerate(LORA_PROMPTS)]
    write_png(path, grid(np.stack([*prompts, *rows]), 8))
