"""Noise that goes with its scene: what a caption leaves open is read off the noise, not guessed.

A flow model that meets pictures and noise at random must answer pure noise with the mean of all pictures
that fit the caption, and few steps leave a haze of it. Here each open choice of a scene (where exactly, how
large, lit from where) is a standard normal number, and the noise of its training sample carries it: along the
checkerboard of one latent channel, where pictures have next to nothing. Noise that the server draws has such
numbers too, of the same distribution, and one sharp picture goes with them.
"""

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.render import cloud_places
from training.scenes import HORIZONS, Scene, Thing, base_range, centre_range, height_range
from training.shapes import YAWS
from training.vocabulary import GROUNDS, SKIES

CHANNELS: Final = 16
_PLACES: Final = ("middle", "middle", "left", "right")
_RIGHT_WRIST, _LEFT_WRIST = 4, 7
_EDGE: Final = 1e-4
"""Quantiles keep this far from 0 and 1, whose normal numbers are infinite."""


def coordinates(scene: Scene) -> NDArray[np.float32]:
    """The scene's open choices as independent standard normal numbers, (16,); what it lacks is random."""
    rng = np.random.default_rng((scene.seed, 6))
    quantiles = rng.random(CHANNELS)
    pair = len(scene.things) == 2
    quantiles[0:4] = list(_thing_quantiles(scene, 0, rng))
    quantiles[4] = _share(scene.horizon, *HORIZONS)
    quantiles[5] = _category(scene.light > 0, 2, rng)
    if pair:
        quantiles[9:13] = list(_thing_quantiles(scene, 1, rng))
    else:
        low = _PLACES.index(scene.place)
        quantiles[6] = (low + rng.random() * _PLACES.count(scene.place)) / len(_PLACES)
    quantiles[7] = _category(list(GROUNDS).index(scene.ground), len(GROUNDS), rng)
    quantiles[8] = _category(list(SKIES).index(scene.sky), len(SKIES), rng)
    if scene.sky == "clouds":
        (x, y), (other, _) = cloud_places(scene)
        quantiles[13:16] = _share(x, -0.1, 0.1), _share(y, 0.3, 0.6), _share(other, -0.1, 0.1)
    normal = NormalDist()
    return np.array([normal.inv_cdf(min(max(at, _EDGE), 1 - _EDGE)) for at in quantiles], np.float32)


def _thing_quantiles(scene: Scene, index: int, rng: np.random.Generator) -> Iterable[float]:
    """Of where a thing is and stands, its height and its turn or side."""
    thing, pair = scene.things[index], len(scene.things) == 2
    yield _share(thing.x, *centre_range(scene.place, index))
    yield _share(thing.base, *base_range(thing.kind, thing.size, pair))
    yield _share(thing.height, *height_range(thing.kind, thing.size, pair))
    yield _category(_turn(thing), 2 if thing.joints is not None else YAWS, rng)


def _turn(thing: Thing) -> int:
    """How a solid thing is turned; of a figure, which side does what its pose has only one side do."""
    if thing.joints is None:
        return thing.yaw
    return int(thing.joints[_RIGHT_WRIST, 1] > thing.joints[_LEFT_WRIST, 1])


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def _category(index: int, count: int, rng: np.random.Generator) -> float:
    return float(index + rng.random()) / count


def coupled_noise(numbers: Tensor, height: int, width: int) -> Tensor:
    """Standard normal noise (B, 16, height, width) that carries numbers (B, 16); both sides are even."""
    noise = torch.randn(*numbers.shape, height, width, device=numbers.device)
    pattern = _checkerboard(height, width).to(numbers.device)
    held = (noise * pattern).sum((2, 3))
    return noise + (numbers - held)[..., None, None] * pattern


def _checkerboard(height: int, width: int) -> Tensor:
    """Plus and minus one in turn, scaled to length 1: the finest pattern that latents can show."""
    signs: Tensor = 1 - 2 * ((torch.arange(height)[:, None] + torch.arange(width)) % 2)
    return signs / math.sqrt(height * width)
