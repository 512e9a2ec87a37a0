"""Draws the pictures of the playground's examples: `python -m training.examples`.

The maps are 512 x 512; a card shows a map beside a picture of the same scene, in the words of its prompt.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.figure import pose_joints
from training.maps import Control, control_map
from training.render import render
from training.scenes import Scene, Thing

FOLDER: Final = Path(__file__).parent.parent / "app" / "playground" / "examples"
SIDE: Final = 512
CARD: Final = (480, 360)

_PAIR: Final = (
    Thing("ball", "green", "", 0.42, 0.28, 0.80),
    Thing("cone", "red", "", 0.52, 0.72, 0.84, yaw=2),
)
_FIGURE: Final = Thing(
    "figure",
    "green",
    "",
    0.86,
    0.5,
    0.93,
    pose="waving",
    joints=pose_joints("waving", np.random.default_rng(4)),
)


def _scene(*things: Thing, ground: str, sky: str) -> Scene:
    return Scene(things, ground, sky, horizon=0.44, light=-1, place="middle", seed=1)


TEXT: Final = _scene(Thing("ball", "red", "", 0.46, 0.5, 0.80), ground="grass", sky="clear")
EDGES: Final = _scene(
    replace(_PAIR[0], colour="blue"), replace(_PAIR[1], colour="yellow"), ground="sand", sky="sunset"
)
DEPTH: Final = _scene(
    Thing("box", "purple", "", 0.40, 0.28, 0.74, yaw=1),
    Thing("ball", "orange", "", 0.44, 0.70, 0.86),
    ground="wood",
    sky="overcast",
)
POSE: Final = _scene(_FIGURE, ground="sand", sky="clear")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    _save("text.jpg", render(TEXT, *CARD).image)
    _save("edges.jpg", _halves(EDGES, "canny"))
    _save("depth.jpg", _halves(DEPTH, "depth"))
    _save("pose.jpg", _side_by_side(POSE, "pose"))
    _save("depth-map.png", control_map(render(DEPTH, SIDE, SIDE), "depth"))
    _save("pose-map.png", control_map(render(POSE, SIDE, SIDE), "pose"))


def _halves(scene: Scene, control: Control) -> NDArray[np.uint8]:
    """(H, W, 3): the control map on the left of a slanted line, the picture on its right."""
    drawn = render(scene, *CARD)
    width, height = CARD
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    left = columns < width / 2 + (height / 2 - rows) * 0.25
    return np.where(left[..., None], control_map(drawn, control), drawn.image)


def _side_by_side(scene: Scene, control: Control) -> NDArray[np.uint8]:
    """(H, W, 3): the whole control map on the left, the whole picture on the right."""
    width, height = CARD
    drawn = render(scene, width // 2, height)
    return np.concatenate([control_map(drawn, control), drawn.image], axis=1)


def _save(name: str, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(FOLDER / name, quality=85, optimize=True)


if __name__ == "__main__":
    main()
