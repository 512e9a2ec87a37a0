"""What a result says of an image that is taken for a map as it is."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.canny import canny, fit
from models.job import Preprocess
from models.schema.inputs import PreprocessInput
from worker.config import WorkerSettings
from worker.stages.control_map import control_source, looks_like_photograph, map_warnings


def photograph(name: str) -> Image.Image:
    """One that comes with scikit-image."""
    skimage = pytest.importorskip("skimage", reason="scikit-image, whose photographs these are, is not here")
    return Image.open(Path(skimage.__file__).parent / "data" / name)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def told(image: Image.Image, preprocess: Preprocess = "none") -> list[str]:
    asked = PreprocessInput(image_url="https://a.test/x.png", preprocess=preprocess, image_size="square")
    data = png(image)
    return map_warnings(data, asked, control_source(data, asked, WorkerSettings(_env_file=None, model="x")))


def skeleton() -> Image.Image:
    image = Image.new("RGB", (512, 512))
    image.paste((255, 0, 0), (100, 100, 130, 400))
    image.paste((0, 255, 80), (130, 100, 300, 120))
    return image


def test_transparent_parts_of_a_map_are_black_and_told_of() -> None:
    image = Image.new("RGBA", (512, 512))
    image.paste((255, 255, 255, 255), (100, 100, 200, 200))
    asked = PreprocessInput(image_url="https://a.test/x.png", preprocess="none", image_size="square")
    control = control_source(png(image), asked, WorkerSettings(_env_file=None, model="x"))
    assert tuple(control[0, 0]) == (0, 0, 0)
    assert tuple(control[150, 150]) == (255, 255, 255)
    assert told(image) == ["The image is transparent in parts, which are black in the control map."]


def test_alpha_that_hides_nothing_is_not_told_of() -> None:
    assert told(Image.new("RGBA", (512, 512), (0, 0, 0, 255))) == []


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "chelsea.png"])
def test_photograph_is_told_of_with_the_ways_to_make_a_map(name: str) -> None:
    image = photograph(name).convert("RGB")
    (warning,) = told(image)
    assert "looks like a photograph" in warning
    assert warning.endswith("canny, depth, pose.")
    assert told(image, "canny") == []


def test_maps_are_no_photographs() -> None:
    pixels = np.asarray(photograph("astronaut.png").convert("RGB"))
    depth = np.repeat(np.linspace(0, 255, 512, dtype=np.uint8)[None, :, None], 512, 0).repeat(3, 2)
    for each in (canny(pixels, 512, 512), 255 - canny(pixels, 512, 512), depth, np.asarray(skeleton())):
        assert not looks_like_photograph(fit(each, 512, 512))
