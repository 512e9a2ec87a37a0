"""A caller's bytes to checked RGB pixels. An error never has Pillow's own text: it can leak addresses."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from models.job import Pixels
from worker.errors import ImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")
"""The only decoders that a caller's bytes reach; Pillow has forty more by default."""

MAX_MEGAPIXELS = 40
MAX_SIDE = 16_384

SIXTEEN_BIT = 257
"""65535 / 255."""


def read_image(data: bytes, field: str) -> Pixels:
    """The first frame, turned as its EXIF says, over white where it is transparent.

    `field` is where the bytes came from, for the message. Raises ImageError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image, field)
                image.load()
                return np.asarray(_flatten(ImageOps.exif_transpose(image)))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        # Pillow's own limit, four times ours, is judged before the size can be asked for.
        raise ImageError(f"{field}: the picture has far more than {MAX_MEGAPIXELS} megapixels.") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{field}: this is no picture that can be read; send one of {', '.join(FORMATS)}."
        ) from None
    except Exception:
        # On damaged bytes the decoders raise OSError, SyntaxError, RuntimeError, struct.error and more.
        raise ImageError(f"{field}: the picture is damaged or cut off.") from None


def _check_size(image: Image.Image, field: str) -> None:
    """By the header, before a pixel is decoded."""
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1_000_000 or max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{field}: the picture is {width}x{height}; at most {MAX_MEGAPIXELS} megapixels and "
            f"{MAX_SIDE} pixels a side are taken."
        )


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # convert() would clip 16 bits at 255 rather than scale them.
        levels = np.asarray(image).astype(np.uint32) // SIXTEEN_BIT
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return image.convert("RGB")
