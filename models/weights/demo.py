"""The demo model, which comes with this package: trained by `training/` on simple scenes that it draws.

`demo_weights/` is laid out as the published weights are, so that the demo takes the same path from loading to
decoding; its README.md is the model card.
"""

import functools
import json
import math
from pathlib import Path

from models.sizes import GRID
from models.weights.published import CONTROLNET_2_1, Published

FOLDER = Path(__file__).parents[1] / "demo_weights"
CONTROLNET = FOLDER / "controlnet.safetensors"
LORAS = FOLDER / "loras"
_CONTROLNETS = {CONTROLNET_2_1: FOLDER / "controlnet-2.1.safetensors"}


def controlnet(published: Published) -> Path:
    """The demo's own control branch that has the layout of a published one."""
    return _CONTROLNETS.get(published.repo_id, CONTROLNET)


def native_size(width: int, height: int) -> tuple[int, int]:
    """The size, in the shape of `width` by `height`, of as many pixels as the demo was trained at."""
    scale = _side() / math.sqrt(width * height)
    return max(GRID, round(width * scale / GRID) * GRID), max(GRID, round(height * scale / GRID) * GRID)


@functools.cache
def _side() -> int:
    """The side in pixels of the square pictures that the demo was trained on."""
    return int(json.loads((FOLDER / "vae" / "config.json").read_bytes())["sample_size"])
