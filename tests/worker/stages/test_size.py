"""The size of a picture: what the request asks for, and the demo model's own."""

import pytest

from models.config import ModelSettings
from worker.stages.size import drawn_size, size_warning

DEMO = ModelSettings(_env_file=None, model="demo")
REAL = ModelSettings(_env_file=None, model="z-image-turbo")


@pytest.mark.parametrize(
    ("asked", "real", "demo"),
    [
        ("square_hd", (1024, 1024), (128, 128)),
        ("landscape_4_3", (1024, 768), (144, 112)),
        ("portrait_16_9", (576, 1024), (96, 176)),
        ("2048x128", (2048, 128), (512, 32)),
        ("auto", (640, 480), (144, 112)),
    ],
)
def test_demo_keeps_the_shape_at_its_own_number_of_pixels(
    asked: str, real: tuple[int, int], demo: tuple[int, int]
) -> None:
    assert drawn_size(asked, (640, 480), REAL) == real
    assert drawn_size(asked, (640, 480), DEMO) == demo


def test_only_the_demo_warns() -> None:
    assert size_warning(640, 480, REAL) is None
    assert "144x112" in str(size_warning(144, 112, DEMO))
