import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SizeError
from models.sizes import GRID, MAX_AREA, MAX_RATIO, MIN_AREA, PRESETS, auto_size, output_size

sides = st.integers(1, 20_000)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int]:
    long = draw(sides)
    short = draw(st.integers(math.ceil(long / MAX_RATIO), long))
    return draw(st.sampled_from([(long, short), (short, long)]))


@given(shapes())
def test_auto_is_on_the_grid_and_within_the_allowed_area(shape: tuple[int, int]) -> None:
    width, height = auto_size(*shape)
    assert width % GRID == height % GRID == 0
    assert MIN_AREA <= width * height <= MAX_AREA


@given(shapes())
def test_auto_moves_each_side_by_less_than_one_grid_step_from_the_scaled_image(
    shape: tuple[int, int],
) -> None:
    area = shape[0] * shape[1]
    scale = math.sqrt(min(max(area, MIN_AREA), MAX_AREA) / area)
    for side, original in zip(auto_size(*shape), shape, strict=True):
        assert abs(side - original * scale) <= GRID


@given(st.integers(512 // GRID, 2048 // GRID), st.integers(512 // GRID, 2048 // GRID))
def test_auto_leaves_a_size_that_already_fits(columns: int, rows: int) -> None:
    size = (columns * GRID, rows * GRID)
    assert auto_size(*size) == size


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((1000, 700), (992, 704)),
        ((256, 256), (512, 512)),
        ((128, 512), (256, 1024)),
        ((4096, 4096), (2048, 2048)),
        ((1, 1), (512, 512)),
        ((100, 1600), (128, 2048)),
    ],
)
def test_auto_examples(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert output_size("auto", image) == expected


@given(sides)
def test_auto_refuses_a_strip_and_says_what_to_do(short: int) -> None:
    with pytest.raises(SizeError, match=r"image_size: 'auto' .* choose a preset"):
        auto_size(short, MAX_RATIO * short + 1)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_do_not_look_at_the_image(name: str) -> None:
    assert output_size(name, (3, 40_000)) == PRESETS[name]
    assert all(side % GRID == 0 for side in PRESETS[name])
