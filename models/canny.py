"""The canny control map of a picture, and the fitting of a picture to the output's size."""

import cv2
import numpy as np

from models.job import Pixels

CANNY_LOW = 100
CANNY_HIGH = 200
"""Thresholds of controlnet-aux's CannyDetector."""


def fit(pixels: Pixels, width: int, height: int) -> Pixels:
    """The middle of a picture at exactly (height, width): scaled to cover it, what juts out cut off.

    The content keeps its aspect ratio. Filters as in controlnet-aux: Lanczos up, area average down.
    """
    have_height, have_width = pixels.shape[:2]
    scale = max(width / have_width, height / have_height)
    covering = (max(width, round(have_width * scale)), max(height, round(have_height * scale)))
    scaled = cv2.resize(pixels, covering, interpolation=cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA)
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width], dtype=np.uint8)


def canny(pixels: Pixels, width: int, height: int) -> Pixels:
    """White edges on black, shape (height, width, 3)."""
    edges = cv2.Canny(fit(pixels, width, height), CANNY_LOW, CANNY_HIGH)
    return np.repeat(np.asarray(edges, dtype=np.uint8)[:, :, None], 3, axis=2)
