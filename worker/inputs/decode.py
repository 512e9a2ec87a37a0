"""The decoding of a caller's bytes to checked RGB pixels.

An error never has Pillow's own text: it can leak addresses.
"""

import io
import re
import warnings
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from models.job import Pixels
from worker.errors import ImageError

Ground = Literal["white", "black"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF", "HEIF")
"""The only decoders that a caller's bytes reach; Pillow has forty more by default."""
NAMES = ", ".join(FORMATS).replace("HEIF", "HEIC")

MAX_MEGAPIXELS = 40
MAX_SIDE = 16_384
MAX_SCANS = 100
MAX_SCANNED_MEGAPIXELS = 600
"""Scans of a JPEG times its megapixels: a progressive one of the largest size has ten scans, so 400. A scan
of a few bytes goes over all pixels: 100 of 40 megapixels take 4 s, and a file of 50 MB would take hours."""

SCAN, END = 0xDA, 0xD9
ALONE = (0x01, *range(0xD0, 0xD9))
"""Markers of a JPEG that have no length after them."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])")

SIXTEEN_BIT = 257
"""65535 / 255."""


def read_image(data: bytes, field: str, ground: Ground = "white") -> Pixels:
    """The first frame, turned as its EXIF says, over `ground` where it is transparent.

    `field` is where the bytes came from, for the message. Raises ImageError.
    """
    _register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image, field)
                if image.format in ("JPEG", "MPO"):
                    _check_scans(image, data, field)
                image.load()
                # In place: a copy of forty megapixels is 160 MB.
                ImageOps.exif_transpose(image, in_place=True)
                return np.asarray(_flatten(image, ground))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        # Pillow's own limit, four times ours, is judged before the size can be asked for.
        raise ImageError(f"{field}: the picture has far more than {MAX_MEGAPIXELS} megapixels.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{field}: this is no picture that can be read; send one of {NAMES}.") from None
    except Exception:
        # On damaged bytes the decoders raise OSError, SyntaxError, RuntimeError, struct.error and more.
        raise ImageError(f"{field}: the picture is damaged or cut off.") from None


@cache
def _register_heif() -> None:
    # Late: it loads a library that few processes need. pi-heif decodes only, so it holds no GPL encoder.
    from pi_heif import register_heif_opener

    register_heif_opener(thumbnails=False)


def _check_size(image: Image.Image, field: str) -> None:
    """Judges the size by the header, before a pixel is decoded."""
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1_000_000 or max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{field}: the picture is {width}x{height}; at most {MAX_MEGAPIXELS} megapixels and "
            f"{MAX_SIDE} pixels a side are taken."
        )


def _check_scans(image: Image.Image, data: bytes, field: str) -> None:
    scans, megapixels = _count_scans(data), image.width * image.height / 1_000_000
    if scans > MAX_SCANS or scans * megapixels > MAX_SCANNED_MEGAPIXELS:
        raise ImageError(
            f"{field}: the JPEG has {scans} scans of {megapixels:.1f} megapixels; at most {MAX_SCANS} scans "
            f"and {MAX_SCANNED_MEGAPIXELS} megapixels in all of them are taken: save it as baseline or PNG."
        )


def _count_scans(data: bytes) -> int:
    """The scans of the first picture, found as libjpeg finds them; behind it a telephone may put a film."""
    scans = at = 0
    while (marker := _MARKER.search(data, at)) and (kind := marker[1][0]) != END:
        scans += kind == SCAN
        at = marker.end()
        if kind not in ALONE:
            at += int.from_bytes(data[at : at + 2])
    return scans


def _flatten(image: Image.Image, ground: Ground) -> Image.Image:
    if image.mode.startswith("I"):
        # convert() would clip 16 bits at 255 rather than scale them.
        levels = np.asarray(image) // SIXTEEN_BIT
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image if image.mode == "RGBA" else image.convert("RGBA")
        flat = Image.new("RGB", layers.size, ground)
        flat.paste(layers, mask=layers.getchannel("A"))
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")
