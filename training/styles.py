"""The two styles that the demo's LoRAs learn, as functions from a rendering to its picture in that style."""

from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render import Rendering

Style = Literal["blueprint", "night"]
STYLES: Final[tuple[Style, ...]] = ("blueprint", "night")
_PAPER: Final = np.array((22, 62, 140), np.float32)
_INK: Final = np.array((226, 238, 255), np.float32)


def blueprint(rendering: Rendering) -> NDArray[np.uint8]:
    """Light outlines on blue paper, things tinted a little lighter."""
    height, width = rendering.depth.shape
    outlines = np.zeros((height, width), np.float32)
    for mask in rendering.masks:
        edge = np.asarray(
            cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        )
        outlines = np.maximum(outlines, edge.astype(np.float32))
    grey = np.asarray(cv2.cvtColor(rendering.image, cv2.COLOR_RGB2GRAY), np.float32) / 255
    inside = rendering.masks.any(0)
    ink = np.maximum(outlines, np.where(inside, 0.10 + 0.3 * grey, 0.10 * grey))[..., None]
    return np.clip(_PAPER + (_INK - _PAPER) * ink, 0, 255).astype(np.uint8)


def night(rendering: Rendering) -> NDArray[np.uint8]:
    """The same picture by moonlight: dark, blue, with the things still telling their colour."""
    image = rendering.image.astype(np.float32) / 255
    grey = image.mean(2, keepdims=True)
    muted = grey + (image - grey) * 0.65
    dark = muted**1.35 * np.array((0.34, 0.42, 0.72), np.float32) + np.array((0.01, 0.02, 0.07), np.float32)
    lit = np.where(np.any(rendering.masks, axis=0), 1.25, 0.8)[..., None]
    return np.asarray(np.clip(dark * lit, 0, 1) * 255, np.uint8)


def stylize(rendering: Rendering, style: Style) -> NDArray[np.uint8]:
    """The picture of the rendering in `style`, (H, W, 3)."""
    return blueprint(rendering) if style == "blueprint" else night(rendering)
