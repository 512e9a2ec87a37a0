"""A simple human figure made of rounded limbs, with the eighteen OpenPose joints it is posed by.

Figure space: x right, y up, feet on y = -1, about 2 tall; it faces the viewer, so its right hand is on our
left.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.shapes import Array, Sprite

SPAN: Final = 1.3
_UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.36, 0.34, 0.44, 0.44
_HIP_Y, _NECK_Y, _HEAD = -0.1, 0.56, 0.19
# Degrees from hanging straight down, outwards: (upper arm, forearm) of the right side, then of the left.
_ARMS: Final[dict[str, tuple[tuple[float, float], tuple[float, float]]]] = {
    "standing": ((14, 8), (14, 8)),
    "raised": ((145, 165), (145, 165)),
    "waving": ((120, 175), (14, 8)),
    "wide": ((90, 90), (90, 90)),
    "hips": ((50, -50), (50, -50)),
    "walking": ((30, 5), (30, 55)),
}
_LEGS: Final[dict[str, tuple[tuple[float, float], tuple[float, float]]]] = {
    "walking": ((24, 8), (22, 30)),
    "wide": ((16, 16), (16, 16)),
}
_LIMBS: Final = (
    # joint, joint, radius
    (1, 8, 0.13), (1, 11, 0.13), (8, 11, 0.13), (2, 5, 0.11),
    (2, 3, 0.085), (3, 4, 0.07), (5, 6, 0.085), (6, 7, 0.07),
    (8, 9, 0.11), (9, 10, 0.085), (11, 12, 0.11), (12, 13, 0.085), (1, 0, 0.07),
)  # fmt: skip


def pose_joints(pose: str, rng: np.random.Generator) -> Array:
    """The 18 joints in OpenPose's order, shape (18, 2), figure space, with each limb turned a little at
    random.
    """

    def reach(start: NDArray[np.float64], length: float, degrees: float, side: int) -> NDArray[np.float64]:
        angle = np.radians(degrees + rng.uniform(-9, 9))
        return start + length * np.array([side * np.sin(angle), -np.cos(angle)])

    neck = np.array([0.0, _NECK_Y])
    head = np.array([rng.uniform(-0.03, 0.03), _NECK_Y + 0.23])
    joints = np.zeros((18, 2))
    joints[0], joints[1] = head, neck
    mirrored = rng.random() < 0.5
    for side, first in ((-1, 0), (1, 1)):
        index = 1 - first if mirrored else first
        arm = _ARMS[pose][index]
        leg = _LEGS.get(pose, ((6, 4), (6, 4)))[index]
        shoulder = neck + np.array([side * 0.22, -0.03])
        elbow = reach(shoulder, _UPPER_ARM, arm[0], side)
        hip = np.array([side * 0.12, _HIP_Y])
        knee = reach(hip, _THIGH, leg[0], side)
        joints[2 + 3 * first : 5 + 3 * first] = shoulder, elbow, reach(elbow, _FOREARM, arm[1], side)
        joints[8 + 3 * first : 11 + 3 * first] = hip, knee, reach(knee, _SHIN, leg[1], side)
        joints[14 + first] = head + np.array([side * 0.06, 0.04])
        joints[16 + first] = head + np.array([side * 0.14, 0.02])
    joints[:, 1] += -0.93 - min(joints[10, 1], joints[13, 1])
    return joints.astype(np.float32)


def figure_sprite(joints: Array, resolution: int) -> Sprite:
    """Mask, normals and relief of the posed figure as round capsules and a round head."""
    axis = (np.arange(resolution, dtype=np.float32) + 0.5) / resolution * 2 * SPAN - SPAN
    u, v = np.meshgrid(axis, -axis)
    relief = np.full(u.shape, -np.inf, np.float32)
    normals = np.zeros((*u.shape, 3), np.float32)
    head = joints[0] + np.array([0, 0.02], np.float32)
    parts = [(joints[a], joints[b], radius) for a, b, radius in _LIMBS] + [(head, head, _HEAD)]
    for start, end, radius in parts:
        low = np.minimum(start, end) - radius
        high = np.maximum(start, end) + radius
        columns = slice(*np.searchsorted(axis, (low[0], high[0])))
        rows = slice(*np.searchsorted(axis, (-high[1], -low[1])))
        x, y = u[rows, columns] - start[0], v[rows, columns] - start[1]
        ex, ey = end - start
        along = np.clip((x * ex + y * ey) / max(ex * ex + ey * ey, 1e-6), 0, 1)
        dx, dy = x - along * ex, y - along * ey
        height = np.sqrt(np.maximum(radius**2 - dx * dx - dy * dy, 0))
        front = (height > 0) & (height > relief[rows, columns])
        relief[rows, columns] = np.where(front, height, relief[rows, columns])
        normals[rows, columns] = np.where(
            front[..., None], np.stack([dx, dy, height], -1) / radius, normals[rows, columns]
        )
    mask = np.isfinite(relief)
    return Sprite(mask.astype(np.float32), normals, np.where(mask, relief, 0), foot=float((1 + 1 / SPAN) / 2))
