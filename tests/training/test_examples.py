"""The maps of the playground's examples are those that `python -m training.examples` draws."""

import numpy as np
import pytest
from PIL import Image

from training.examples import DEPTH, FOLDER, POSE, SIDE
from training.maps import Control, control_map
from training.render import render
from training.scenes import Scene


@pytest.mark.parametrize(("scene", "control"), [(DEPTH, "depth"), (POSE, "pose")])
def test_committed_map_is_the_one_that_is_drawn(scene: Scene, control: Control) -> None:
    with Image.open(FOLDER / f"{control}-map.png") as picture:
        assert np.array_equal(np.asarray(picture), control_map(render(scene, SIDE, SIDE), control))
