"""What a scene holds, drawn from a seed: one or two things, a ground, a sky and the side the light comes
from.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.figure import pose_joints
from training.shapes import YAWS, Array
from training.vocabulary import COLOURS, GROUNDS, OBJECTS, POSES, SKIES, held_out_pairs

# Heights as fractions of the picture's shorter side.
SIZES: Final[dict[str, tuple[float, float]]] = {
    "small": (0.30, 0.36),
    "": (0.44, 0.52),
    "large": (0.60, 0.68),
}
FIGURE_SIZES: Final[dict[str, tuple[float, float]]] = {
    "small": (0.50, 0.56), "": (0.66, 0.74), "large": (0.80, 0.86)
}  # fmt: skip
PAIR_SIZE: Final = (0.36, 0.44)
CENTRES: Final[dict[str, tuple[float, float]]] = {
    "left": (0.28, 0.34), "middle": (0.47, 0.53), "right": (0.66, 0.72)
}  # fmt: skip
_PAIR_CENTRES: Final = ((0.25, 0.30), (0.70, 0.75))


@dataclass(frozen=True)
class Thing:
    """One object. `x` and `base` (where it stands) are fractions of the width and height, `height` of the
    shorter side.
    """

    kind: str
    colour: str
    size: str
    height: float
    x: float
    base: float
    yaw: int = 0
    pose: str = ""
    joints: Array | None = None
    """Figure space, shape (18, 2); None for what is not a figure."""


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    ground: str
    sky: str
    horizon: float
    """Fraction of the height."""
    light: int
    """-1: from the left, 1: from the right."""
    place: str
    """Where a single thing is: left, middle or right; empty for two."""
    seed: int


def pick(rng: np.random.Generator, words: object) -> str:
    """One of the keys or items, evenly."""
    choices = list(words)  # type: ignore[call-overload]
    return str(choices[rng.integers(len(choices))])


def _pair(rng: np.random.Generator, kinds: list[str], held_out: bool) -> tuple[str, str]:
    """A kind and a colour from the combinations that training sees, or from those that it does not."""
    unseen = held_out_pairs()
    while True:
        kind, colour = pick(rng, kinds), pick(rng, COLOURS)
        if ((colour, kind) in unseen) == held_out:
            return kind, colour


def _thing(
    rng: np.random.Generator, kind: str, colour: str, centre: tuple[float, float], pair: bool
) -> Thing:
    if kind == "figure":
        size = "" if pair else pick(rng, ("", "", "", "small", "large"))
        pose = pick(rng, POSES)
        low, high = (0.56, 0.64) if pair else FIGURE_SIZES[size]
        return Thing(
            kind, colour, size, rng.uniform(low, high), rng.uniform(*centre), rng.uniform(0.90, 0.95),
            pose=pose, joints=pose_joints(pose, rng),
        )  # fmt: skip
    size = "" if pair else pick(rng, ("", "", "small", "large"))
    height = rng.uniform(*(PAIR_SIZE if pair else SIZES[size]))
    base = rng.uniform(0.74, 0.88) if size == "small" or pair else rng.uniform(0.82, 0.90)
    return Thing(kind, colour, size, height, rng.uniform(*centre), base, yaw=int(rng.integers(YAWS)))


def sample_scene(
    seed: int, *, pairs: float = 0.2, figures: float = 0.16, held_out: bool = False, kind: str | None = None
) -> Scene:
    """The scene of `seed`. `pairs` is the share with two things, `figures` the share with a single figure.

    With `held_out` the first thing's colour and kind are a combination that training never shows; `kind`
    fixes it.
    """
    rng = np.random.default_rng(seed)
    solid = [name for name in OBJECTS if name != "figure"]
    two = kind is None and rng.random() < pairs
    kinds = [kind] if kind else ["figure"] if not two and rng.random() < figures else solid
    if held_out and kinds == solid:
        kinds = list(OBJECTS)
    first = _pair(rng, kinds, held_out)
    if two:
        second = _pair(rng, [name for name in solid if name != first[0]], False)
        while second[1] == first[1]:
            second = _pair(rng, [name for name in solid if name != first[0]], False)
        things = tuple(
            _thing(rng, *what, centre, True)
            for what, centre in zip((first, second), _PAIR_CENTRES, strict=True)
        )
        place = ""
    else:
        place = pick(rng, ("middle", "middle", "left", "right"))
        things = (_thing(rng, *first, CENTRES[place], False),)
    return Scene(
        things,
        pick(rng, GROUNDS),
        pick(rng, SKIES),
        rng.uniform(0.38, 0.46),
        int(rng.choice((-1, 1))),
        place,
        seed,
    )
