"""Pixels survive the file, and the file says how they were made."""

import io

import numpy as np
import pytest
from PIL import Image

from worker.encoding.encode import encode
from worker.encoding.metadata import read_metadata, request_body


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture with every channel different."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], -1).astype(
        np.uint8
    )


def metadata(prompt: str = "a red cube") -> dict:
    request = {"prompt": prompt, "image_url": "https://example.com/x.png", "loras": [], "seed": -1}
    return {
        "version": "1.2.3",
        "model_id": "some/model",
        "model": "some-model",
        "prompt": prompt,
        "expanded_prompt": None,
        "seed": 7,
        "num_inference_steps": 8,
        "width": 64,
        "height": 48,
        "strength": None,
        "control": None,
        "loras": [],
        "request": request,
    }


def decoded(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("described", [None, metadata()])
def test_png_keeps_every_pixel(described):
    assert np.array_equal(decoded(encode(picture(), "png", described).data), picture())


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
@pytest.mark.parametrize("described", [None, metadata()])
def test_lossy_formats_stay_close_and_keep_the_channels_in_order(output_format, described):
    difference = decoded(encode(picture(), output_format, described).data).astype(int) - picture()

    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(
    ("output_format", "pillow_name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
)
def test_file_is_what_its_content_type_says(output_format, pillow_name):
    encoded = encode(picture(), output_format)

    assert Image.open(io.BytesIO(encoded.data)).format == pillow_name
    assert (encoded.content_type, encoded.extension) == (f"image/{output_format}", output_format)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    "prompt",
    [
        "a red cube",
        'süße "Würfel", 红色立方体 🐕',
        "two\nlines: Steps: 3, Seed: 1",
        "a long prompt, " * 600,
        "",
    ],
)
def test_metadata_comes_back_from_every_format(output_format, prompt):
    described = metadata(prompt)

    found = read_metadata(encode(picture(), output_format, described).data)

    assert found["zturbo"] == described
    assert found["parameters"].startswith(f"{prompt}\nSteps: 8, ")


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_longest_prompt_fits_png_and_webp_whole(output_format):
    described = metadata("红" * 20_000)

    found = read_metadata(encode(picture(), output_format, described).data)

    assert found["zturbo"] == described
    assert "红" * 20_000 in found["parameters"]


def test_jpeg_that_cannot_hold_both_texts_keeps_the_request():
    described = metadata("ten chars " * 2000)

    found = read_metadata(encode(picture(), "jpeg", described).data)

    assert found == {"zturbo": described}


def test_jpeg_that_can_hold_neither_text_is_still_a_picture():
    data = encode(picture(), "jpeg", metadata("红" * 20_000)).data

    assert decoded(data).shape == picture().shape
    assert read_metadata(data) == {}


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_without_metadata_the_file_says_nothing(output_format):
    assert read_metadata(encode(picture(), output_format).data) == {}


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_request_comes_back_with_the_seed_that_was_drawn(output_format):
    found = read_metadata(encode(picture(), output_format, metadata()).data)

    assert request_body(found) == {**metadata()["request"], "seed": 7}


def test_png_text_is_in_its_own_chunks_as_pillow_reads_them():
    image = Image.open(io.BytesIO(encode(picture(), "png", metadata("红 cube")).data))

    assert image.text["parameters"].startswith("红 cube\nSteps: 8, Sampler: Euler, ")
    assert set(image.text) == {"parameters", "zturbo"}


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_exif_names_the_program(output_format):
    image = Image.open(io.BytesIO(encode(picture(), output_format, metadata()).data))

    assert image.getexif()[0x0131] == "zturbo 1.2.3"


def test_same_pixels_and_metadata_give_the_same_bytes():
    assert encode(picture(), "png", metadata()) == encode(picture(), "png", metadata())


def test_rows_that_are_not_contiguous_are_encoded_as_seen():
    flipped = picture()[::-1, ::-1]

    assert np.array_equal(decoded(encode(flipped, "png").data), flipped)
