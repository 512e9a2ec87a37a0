"""The control maps of a rendering, as the server's preprocessors would find them: canny, depth and pose."""

from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render import Rendering
from training.shapes import Array

Control = Literal["canny", "depth", "pose"]
CONTROLS: Final[tuple[Control, ...]] = ("canny", "depth", "pose")
CANNY_LOW, CANNY_HIGH = 100, 200

# OpenPose's drawing convention: limbs as pairs of joints counted from 0, and a colour for each limb and
# joint.
LIMBS: Final = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
LIMB_COLOURS: Final = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
_DETECT_SIDE: Final = 512
"""OpenPose draws at its detection size, 4 pixels wide, and the map is then scaled to the picture."""


def canny_map(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """White edges on black, (H, W, 3), from the picture."""
    edges = np.asarray(cv2.Canny(image, CANNY_LOW, CANNY_HIGH), np.uint8)
    return np.repeat(edges[..., None], 3, axis=2)


def depth_map(rendering: Rendering) -> NDArray[np.uint8]:
    """Grey, (H, W, 3), near is bright."""
    return np.repeat(rendering.depth[..., None], 3, axis=2)


def pose_map(joints: Array | None, width: int, height: int) -> NDArray[np.uint8]:
    """The skeleton on black, (H, W, 3); black alone without a figure. `joints` are pixels, (18, 2)."""
    scale = _DETECT_SIDE / min(width, height)
    canvas = np.zeros((round(height * scale), round(width * scale), 3), np.uint8)
    if joints is not None:
        points = joints * scale
        for (a, b), colour in zip(LIMBS, LIMB_COLOURS, strict=False):
            middle = (points[a] + points[b]) / 2
            dx, dy = points[a] - points[b]
            axes = (int(np.hypot(dx, dy) / 2), 4)
            limb = cv2.ellipse2Poly(
                (int(middle[0]), int(middle[1])), axes, int(np.degrees(np.arctan2(dy, dx))), 0, 360, 1
            )
            cv2.fillConvexPoly(canvas, np.asarray(limb), [int(part * 0.6) for part in colour])
        for point, colour in zip(points, LIMB_COLOURS, strict=True):
            cv2.circle(canvas, (int(point[0]), int(point[1])), 4, colour, thickness=-1)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def control_map(rendering: Rendering, control: Control) -> NDArray[np.uint8]:
    """The map of one kind, (H, W, 3)."""
    height, width = rendering.depth.shape
    match control:
        case "canny":
            return canny_map(rendering.image)
        case "depth":
            return depth_map(rendering)
        case "pose":
            return pose_map(rendering.joints, width, height)
