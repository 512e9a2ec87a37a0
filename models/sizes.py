"""The sizes of a picture: the published presets, and the `auto` rule that keeps the input image's shape.

All sizes are (width, height) in pixels; every side is a multiple of `GRID`.
"""

import math
from itertools import product
from typing import Literal

from models.errors import SizeError

PresetSize = Literal[
    "square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"
]
ImageSize = Literal[PresetSize, "auto"]

GRID = 16
"""Every side is a multiple of this: the autoencoder shrinks it by 8, the transformer takes patches of 2."""

PRESETS: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}

MIN_AREA = 512 * 512
MAX_AREA = 2048 * 2048
MAX_RATIO = 16
"""Long side over short side: past it, rounding to the grid would bend the shape by more than a twentieth."""


MIN_SIDE = 256
MAX_SIDE = 2048
"""Of a size that a caller names in pixels."""


def output_size(image_size: str, image_wh: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) that `image_size` means for an image of `image_wh` pixels.

    It is a preset, `auto`, or a size on the grid such as `640x480`, which callers of fal's dialect may ask
    for. Raises SizeError when `auto` is asked to keep a shape longer than MAX_RATIO to 1.
    """
    if image_size == "auto":
        return auto_size(*image_wh)
    if image_size in PRESETS:
        return PRESETS[image_size]
    width, _, height = image_size.partition("x")
    return int(width), int(height)


def on_grid(width: int, height: int) -> str:
    """A size in pixels as `output_size` takes it, each side at the nearest multiple of GRID."""
    return f"{round(width / GRID) * GRID}x{round(height / GRID) * GRID}"


def grid_warnings(field: str, width: int, height: int) -> list[str]:
    """A sentence when `on_grid` changes a size; `field` is what the caller calls it."""
    size = on_grid(width, height)
    if size == f"{width}x{height}":
        return []
    return [f"{field}: {width}x{height} is off the model's grid; it is {size} here."]


def auto_size(width: int, height: int) -> tuple[int, int]:
    """The image's own shape on the grid, with an area from MIN_AREA to MAX_AREA.

    The image is scaled only as far as the area asks, then each side goes to the nearest multiple of GRID;
    where that would leave the allowed area, the nearest size that does not.
    """
    if max(width, height) > MAX_RATIO * min(width, height):
        raise SizeError(
            f"image_size: 'auto' keeps the shape of image_url, but {width}x{height} is longer than "
            f"{MAX_RATIO} to 1; crop the image or choose a preset."
        )
    area = width * height
    scale = math.sqrt(min(max(area, MIN_AREA), MAX_AREA) / area)
    ideal_width, ideal_height = width * scale, height * scale
    allowed = [
        (w, h)
        for w, h in product(_neighbours(ideal_width), _neighbours(ideal_height))
        if MIN_AREA <= w * h <= MAX_AREA
    ]
    return min(allowed, key=lambda size: abs(size[0] - ideal_width) + abs(size[1] - ideal_height))


def _neighbours(side: float) -> tuple[int, int]:
    """The multiples of GRID at or below, and above, a side."""
    below = math.floor(side / GRID) * GRID
    return below, below + GRID
