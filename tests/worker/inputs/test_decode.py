"""A caller's bytes to RGB pixels."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from worker.errors import ImageError
from worker.inputs.decode import read_image

PICTURES = Path(__file__).parent / "pictures"
"""64x48 pixels in HEIC, which nothing here can write: made once by pillow-heif."""


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size with no pixels behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_formats_that_are_taken(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format == "AVIF" else {}
    pixels = read_image(encoded(Image.new("RGB", (40, 20), (200, 100, 50)), format, **options), "image_url")
    assert (pixels.shape, pixels.dtype) == ((20, 40, 3), np.uint8)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), (127, 127, 127)),
        (Image.new("LA", (2, 2), (0, 0)), (255, 255, 255)),
        (Image.fromarray(np.full((2, 2), 32896, np.uint16)), (128, 128, 128)),
        (Image.new("RGB", (2, 2), (9, 99, 199)).quantize(), (9, 99, 199)),
    ],
    ids=["grey", "black and white", "transparent", "half", "transparent grey", "16 bit", "palette"],
)
def test_modes_become_rgb_over_white(image: Image.Image, expected: tuple[int, int, int]) -> None:
    pixels = read_image(encoded(image, "PNG"), "image_url")
    assert tuple(pixels[0, 0]) == expected


def test_cmyk_becomes_rgb() -> None:
    pixels = read_image(
        encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), "image_url"
    )
    assert pixels[0, 0, 0] > 240
    assert pixels[0, 0, 1] < 15


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([255, 0, 0])
    assert tuple(read_image(encoded(image, "GIF", transparency=0), "image_url")[0, 0]) == (255, 255, 255)


def test_ground_may_be_black() -> None:
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert tuple(read_image(encoded(image, "PNG"), "image_url", "black")[0, 0]) == (0, 0, 0)


def test_picture_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif), "image_url").shape == (
        40,
        20,
        3,
    )


@pytest.mark.parametrize(("name", "shape"), [("corner", (48, 64, 3)), ("turned", (64, 48, 3))])
def test_heic_is_taken_and_turned(name: str, shape: tuple[int, ...]) -> None:
    # A blue corner at the top left of red; turned by a quarter it is at the top right.
    pixels = read_image((PICTURES / f"{name}.heic").read_bytes(), "image_url").astype(int)
    assert pixels.shape == shape
    corner = pixels[2, -3 if name == "turned" else 2]
    assert np.abs(corner - (20, 60, 200)).max() <= 6
    assert np.abs(pixels[-3, 2] - (200, 40, 30)).max() <= 6


def test_transparent_heic_is_over_white() -> None:
    pixels = read_image((PICTURES / "transparent.heic").read_bytes(), "image_url")
    assert tuple(pixels[2, 2]) == (255, 255, 255)


@pytest.mark.parametrize("told", [16, 6000])
def test_heic_that_lies_about_its_size_is_refused(told: int) -> None:
    data = bytearray((PICTURES / "corner.heic").read_bytes())
    place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", told, told)
    with pytest.raises(ImageError, match=r"^image_url: the picture"):
        read_image(bytes(data), "image_url")


def of_many_scans(size: tuple[int, int], more: int) -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    data = encoded(Image.new("L", size, 90), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + more * last + b"\xff\xd9"


@pytest.mark.parametrize(("size", "more"), [((64, 64), 100), ((3000, 2500), 75), ((8000, 5000), 10)])
def test_jpeg_of_many_scans_is_refused_before_it_is_decoded(
    size: tuple[int, int], more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = of_many_scans(size, more)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(
        ImageError, match=r"^image_url: the JPEG has \d+ scans of .* in all of them are taken"
    ):
        read_image(data, "image_url")


@pytest.mark.parametrize(("size", "more"), [((64, 64), 0), ((64, 64), 80), ((3000, 2000), 60)])
def test_jpeg_of_fewer_scans_is_read(size: tuple[int, int], more: int) -> None:
    assert read_image(of_many_scans(size, more), "image_url").shape == (size[1], size[0], 3)


def test_only_scans_of_the_picture_itself_count() -> None:
    """A preview in the EXIF block and a film behind the picture may have any bytes."""
    data = encoded(Image.new("RGB", (16, 16), "red"), "JPEG")
    preview = b"\xff\xe1\x10\x02" + b"\xff\xda" * 0x800
    assert read_image(data[:2] + preview + data[2:] + b"\xff\xda" * 1000, "image_url").shape == (16, 16, 3)


def test_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(read_image(data, "image_url")[0, 0]) == (255, 0, 0)


@pytest.mark.parametrize(("width", "height"), [(16_385, 1), (8000, 5001), (20_000, 20_000)])
def test_size_is_refused_by_the_header(width: int, height: int) -> None:
    with pytest.raises(ImageError, match=r"^image_url: the picture .* megapixels"):
        read_image(png_header(width, height), "image_url")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"<!doctype html>",
        encoded(Image.new("RGB", (4, 4)), "TIFF"),
        encoded(Image.new("RGB", (4, 4)), "PPM"),
    ],
    ids=["nothing", "svg", "eps", "html", "tiff", "ppm"],
)
def test_what_is_no_picture_is_named_without_pillows_words(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(data, "image_url")
    assert str(caught.value).startswith(
        "image_url: this is no picture that can be read; send one of PNG, JPEG"
    )
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_picture_that_is_cut_off_is_an_error(format: str, kept: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, format)
    with pytest.raises(ImageError, match=r"^image_url: "):
        read_image(data[: int(len(data) * kept)], "image_url")


def test_damaged_pictures_never_raise_anything_else() -> None:
    rng = np.random.default_rng(1)
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"):
        data = encoded(Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)), format)
        for _ in range(60):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data), 4):
                damaged[position] = rng.integers(0, 256)
            with suppress(ImageError):
                assert read_image(bytes(damaged), "image_url").dtype == np.uint8
