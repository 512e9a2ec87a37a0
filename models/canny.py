"""Control maps: canny, depth and pose of a picture, at the output's own size.

Imports no torch: `canny` runs in the CPU stage, the networks of `Detectors` are imported on their first use.
"""

from collections.abc import Callable

import cv2
import numpy as np

from models.config import ModelSettings
from models.job import Pixels

CANNY_LOW = 100
CANNY_HIGH = 200
"""Thresholds of controlnet-aux's CannyDetector."""

Detector = Callable[[Pixels], Pixels]
"""From a picture to its control map of the same size."""


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


class Detectors:
    """The networks that make depth and pose maps, each loaded from this machine's disk on its first use.

    Raises `WeightsMissing` when a file is not there, `CheckpointError` when it is not what it should be.
    """

    def __init__(self, settings: ModelSettings, device: str) -> None:
        self._settings = settings
        self._device = device
        self._depth: Detector | None = None
        self._pose: Detector | None = None

    def depth(self, pixels: Pixels, width: int, height: int) -> Pixels:
        """Near is white, far is black, shape (height, width, 3)."""
        if self._depth is None:
            from models.inference.control import depth

            self._depth = depth.BACKENDS[self._settings.depth_backend](self._device)
        return self._depth(fit(pixels, width, height))

    def pose(self, pixels: Pixels, width: int, height: int) -> Pixels:
        """Coloured skeletons on black, shape (height, width, 3); all black where nobody is seen."""
        if self._pose is None:
            from models.inference.control.openpose import load_openpose

            self._pose = load_openpose(self._device)
        return self._pose(fit(pixels, width, height))
