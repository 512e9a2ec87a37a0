"""Arrays of pictures by seed, rendered by as many processes as the machine has to spare."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.maps import CONTROLS, Control, control_map
from training.render import render
from training.scenes import sample_scene
from training.styles import STYLES, stylize

_CHUNK: Final = 50
Task = TypeVar("Task")
Drawn = TypeVar("Drawn")


Shape = tuple[int, int]
"""Width and height, pixels."""


def picture(seed: int, shape: Shape) -> NDArray[np.uint8]:
    """The training picture of a seed, (height, width, 3)."""
    return render(sample_scene(seed), *shape).image


def styled_picture(seed: int, shape: Shape) -> NDArray[np.uint8]:
    """The training picture of a seed in one style or the other."""
    return stylize(render(sample_scene(seed), *shape), STYLES[seed % len(STYLES)])


def mixed_picture(seed: int, shape: Shape) -> NDArray[np.uint8]:
    """A picture, or in turn a control map or a style of one: all that the autoencoder must carry."""
    rng = np.random.default_rng(seed + 7)
    draw = rng.random()
    control: Control = CONTROLS[rng.integers(3)]
    if draw >= 0.55 and control == "pose":
        return control_map(render(sample_scene(seed, figures=1.0, pairs=0), *shape), "pose")
    rendering = render(sample_scene(seed), *shape)
    if draw < 0.55:
        return rendering.image
    if draw < 0.88:
        return control_map(rendering, control)
    return stylize(rendering, STYLES[rng.integers(2)])


def in_parallel(function: Callable[[Task], Drawn], tasks: Sequence[Task], workers: int) -> list[Drawn]:
    """The function of each task, in order, by `workers` processes."""
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(function, tasks, chunksize=_CHUNK))


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) 0..255 to (N, 3, H, W) -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) -1..1 to (N, H, W, 3) 0..255."""
    array = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    return np.asarray(array.cpu().numpy())
