"""Control maps have the output's exact size and the content's own shape."""

import warnings

import cv2
import numpy as np
import pytest

from models.canny import canny, fit


def drawing(width: int, height: int) -> np.ndarray:
    """A white disc in the middle of a coloured ground, its diameter half the shorter side."""
    pixels = np.full((height, width, 3), (200, 80, 30), np.uint8)
    cv2.circle(pixels, (width // 2, height // 2), min(width, height) // 4, (255, 255, 255), -1)
    return pixels


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (96, 48), (61, 47), (640, 480), (1, 1), (3, 500)])
def test_fit_gives_exactly_the_size_asked_for(size):
    width, height = size

    assert fit(drawing(200, 150), width, height).shape == (height, width, 3)


@pytest.mark.parametrize("size", [(256, 256), (256, 128), (128, 256), (512, 320)])
def test_fit_keeps_circles_round(size):
    white = (fit(drawing(300, 200), *size) == 255).all(axis=2)

    columns, rows = white.any(axis=0).sum(), white.any(axis=1).sum()
    assert abs(int(columns) - int(rows)) <= 2


def test_fit_cuts_off_both_sides_alike():
    fitted = fit(drawing(300, 200), 200, 200)

    assert (
        np.array_equal(fitted, fitted[:, ::-1]) or np.abs(fitted[:, :100].mean() - fitted[:, 100:].mean()) < 1
    )


def test_fit_leaves_a_picture_of_the_right_size_as_it_is():
    assert np.array_equal(fit(drawing(64, 48), 64, 48), drawing(64, 48))


def test_canny_draws_white_edges_on_black_where_they_are():
    edges = canny(drawing(128, 128), 64, 64)

    assert edges.shape == (64, 64, 3)
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    assert edges[32, 15:18].any()
    assert not edges[28:36, 28:36].any()


@pytest.mark.parametrize(
    ("source", "output", "short_side"),
    [
        ((256, 256), (256, 256), 256),
        ((320, 256), (320, 256), 256),
        ((100, 75), (256, 192), 192),
        ((600, 800), (192, 256), 192),
    ],
)
def test_canny_equals_controlnet_aux_where_its_size_rule_does(source, output, short_side):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux import CannyDetector
    picture = drawing(*source)
    picture ^= np.random.default_rng(0).integers(0, 64, picture.shape, dtype=np.uint8)
    width, height = output

    theirs = CannyDetector()(picture, detect_resolution=short_side, image_resolution=short_side)

    assert np.array_equal(canny(picture, width, height), theirs)
