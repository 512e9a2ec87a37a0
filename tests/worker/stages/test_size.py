"""The size of a picture: what the request asks for, and the demo model's own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config import ModelSettings
from models.sizes import PRESETS
from models.weights.demo import RATIO_TOLERANCE
from worker.stages.size import drawn_size, size_warning

DEMO = ModelSettings(_env_file=None, model="demo")
REAL = ModelSettings(_env_file=None, model="z-image-turbo")
SIDE, _ = drawn_size("square_hd", (0, 0), DEMO)


def bent(size: tuple[int, int], asked: tuple[int, int]) -> float:
    ratio = size[0] * asked[1] / (size[1] * asked[0])
    return max(ratio, 1 / ratio) - 1


def test_real_model_draws_what_is_asked_for() -> None:
    assert drawn_size("landscape_4_3", (0, 0), REAL) == (1024, 768)
    assert drawn_size("auto", (640, 480), REAL) == (640, 480)


@pytest.mark.parametrize("name", PRESETS)
def test_demo_keeps_the_aspect_ratio_of_a_preset(name: str) -> None:
    size = drawn_size(name, (0, 0), DEMO)
    assert bent(size, PRESETS[name]) <= RATIO_TOLERANCE
    assert SIDE**2 / 2 < math.prod(size) < 2 * SIDE**2


@given(st.integers(1000, 3000), st.floats(1, 4), st.booleans())
def test_demo_keeps_the_aspect_ratio_of_an_image(short: int, ratio: float, upright: bool) -> None:
    """Of most within 3 %; between two ratios of the grid, and of long ones, it is the nearest."""
    image = (short, round(short * ratio))[:: 1 if upright else -1]
    size = drawn_size("auto", image, DEMO)
    assert bent(size, image) <= (0.035 if ratio < 3 else 0.042)
    assert max(size) <= 2 * SIDE


def test_demo_draws_a_shape_too_long_for_its_grid_as_long_as_it_can() -> None:
    assert drawn_size("2048x128", (0, 0), DEMO) == (2 * SIDE, SIDE // 8)


def test_only_the_demo_warns() -> None:
    assert size_warning(640, 480, REAL) is None
    assert "144x112" in str(size_warning(144, 112, DEMO))
