"""The demo model, which comes with this package: trained by `training/` on simple scenes that it draws.

`demo_weights/` is laid out as the published weights are, so that the demo takes the same path from loading to
decoding; its README.md is the model card.
"""

import functools
import json
import math
from itertools import product
from pathlib import Path

from models.weights.published import CONTROLNET_2_1, Published

FOLDER = Path(__file__).parents[1] / "demo_weights"
CONTROLNET = FOLDER / "controlnet.safetensors"
LORAS = FOLDER / "loras"
RATIO_TOLERANCE = 0.03
"""How far the aspect ratio of a picture may be from the one that is asked for, where the grid allows it."""
_CONTROLNETS = {CONTROLNET_2_1: FOLDER / "controlnet-2.1.safetensors"}


def controlnet(published: Published) -> Path:
    """The demo's own control branch that has the layout of a published one."""
    return _CONTROLNETS.get(published.repo_id, CONTROLNET)


def native_size(width: int, height: int) -> tuple[int, int]:
    """The size at which the demo draws what is asked for at `width` by `height` pixels.

    Of the sizes that have this aspect ratio, within RATIO_TOLERANCE, it is the one whose area is nearest to
    what the demo was trained at; where there is none, the nearest ratio. No side is longer than twice the
    trained one.
    """
    side, grid = _side_and_grid()
    sides = range(grid, 2 * side + 1, grid)
    sizes = list(product(sides, sides))

    def bent(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] * height / (size[1] * width)))

    least = max(min(map(bent, sizes)), math.log1p(RATIO_TOLERANCE))
    kept = [size for size in sizes if bent(size) <= least]
    return min(kept, key=lambda size: (abs(math.log(size[0] * size[1] / side**2)), bent(size)))


@functools.cache
def _side_and_grid() -> tuple[int, int]:
    """The side in pixels of the square pictures that the demo was trained on, and what every side is a
    multiple of: the pixels of an autoencoder's cell, times the two cells of a patch.
    """
    config = json.loads((FOLDER / "vae" / "config.json").read_bytes())
    return int(config["sample_size"]), int(2 ** len(config["block_out_channels"]))
