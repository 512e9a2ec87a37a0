"""The mask of an inpainting request: which part of its image is drawn anew."""

import cv2
import numpy as np

from models.canny import fit
from models.job import Mask
from worker.errors import ImageError
from worker.inputs.decode import read_image

HALF = 128
"""The least grey (0 to 255) that counts as white, as diffusers' mask processor has it."""


def read_mask(data: bytes, field: str, image_wh: tuple[int, int] | None) -> Mask:
    """The checked mask for an image of `image_wh` pixels; what is transparent in it counts as black.

    `field` is where the bytes came from, for the message. Without `image_wh` any size is good. Raises
    ImageError.
    """
    pixels = read_image(data, field, "black")
    height, width = pixels.shape[:2]
    if image_wh and (width, height) != image_wh:
        raise ImageError(
            f"{field}: the mask is {width}x{height} and the image in image_url {image_wh[0]}x{image_wh[1]}; "
            "both must be of one size."
        )
    mask: Mask = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) >= HALF
    if not mask.any():
        raise ImageError(f"{field}: nothing in the mask is white, so nothing would be drawn anew.")
    return mask


def fit_mask(mask: Mask, width: int, height: int, field: str) -> Mask:
    """The mask at the output's size, cut as `models.canny.fit` cuts its image. Raises ImageError."""
    fitted: Mask = fit(mask.astype(np.uint8) * 255, width, height) >= HALF
    if not fitted.any():
        raise ImageError(
            f"{field}: nothing in the mask is white at the picture's size, {width}x{height}; what was is too "
            "thin, or cut off by an image_size of another shape."
        )
    return fitted
