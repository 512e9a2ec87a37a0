"""What scenes are made of, the words for it, and which colour and object combinations training never sees."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (208, 36, 36),
    "orange": (242, 132, 16),
    "yellow": (247, 218, 36),
    "green": (28, 140, 56),
    "blue": (36, 76, 206),
    "purple": (126, 46, 166),
    "pink": (246, 128, 180),
    "white": (242, 242, 242),
}
OBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "ball": ("ball", "sphere"),
    "box": ("box", "cube"),
    "cone": ("cone",),
    "cylinder": ("cylinder", "drum"),
    "ring": ("ring", "hoop"),
    "star": ("star",),
    "heart": ("heart",),
    "figure": ("figure", "person", "mannequin"),
}
GROUNDS: Final[dict[str, tuple[str, ...]]] = {
    "grass": ("on grass", "on a lawn", "on a green meadow"),
    "sand": ("on sand", "on a beach", "in the desert"),
    "stone": ("on grey stone", "on a stone floor", "on concrete"),
    "wood": ("on a wooden floor", "on wood", "on wooden planks"),
}
SKIES: Final[dict[str, tuple[str, ...]]] = {
    "clear": ("under a clear blue sky", "under a blue sky", "on a sunny day"),
    "clouds": ("under a cloudy sky", "under white clouds", "with clouds in the sky"),
    "sunset": ("at sunset", "under an orange evening sky", "under a sunset sky"),
    "overcast": ("under a grey sky", "under an overcast sky", "on a grey day"),
}
POSES: Final[dict[str, tuple[str, ...]]] = {
    "standing": ("standing", "standing still"),
    "raised": ("with raised arms", "with both arms up"),
    "waving": ("waving", "waving a hand"),
    "wide": ("with arms stretched out", "with arms wide open"),
    "hips": ("with hands on the hips",),
    "walking": ("walking", "taking a step"),
}
PLACES: Final[dict[str, tuple[str, ...]]] = {
    "left": ("on the left", "on the left side"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "on the right side"),
}

HELD_OUT_SEEDS: Final = 1_000_000_000
"""Scenes from this seed on are for measuring; training draws below it."""


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """The 8 (colour, object) pairs that no training scene shows: each colour once, each object once."""
    objects = list(OBJECTS)
    return frozenset(
        (colour, objects[(3 * index + 1) % len(objects)]) for index, colour in enumerate(COLOURS)
    )


def colour_array() -> NDArray[np.float32]:
    """The palette, shape (8, 3), RGB 0 to 1, in the order of `COLOURS`."""
    return np.array(list(COLOURS.values()), np.float32) / np.float32(255)
