"""The solid objects as sprites: mask, surface normals and relief, found once by marching rays.

Object space: x right, y up, z towards the viewer; an object stands on y = -1 and is about 2 tall. The camera
is orthographic and looks down by `PITCH`.
"""

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

PITCH: Final = np.radians(16.0)
SPAN: Final = 1.25
"""A sprite shows -SPAN to SPAN of the view plane."""
RESOLUTION: Final = 224
YAWS: Final = 7
_MARCH_STEPS: Final = 60
_START: Final = 4.0


class Sprite(NamedTuple):
    """Square arrays, top row first. `foot` is where the object touches the ground, as a fraction of the
    height.
    """

    mask: Array
    """(S, S), 0 or 1."""
    normals: Array
    """(S, S, 3) in view space (right, up, towards the viewer), zero off the object."""
    relief: Array
    """(S, S), object units towards the viewer from the object's centre, zero off the object."""
    foot: float


def _polygon_distance(x: Array, y: Array, corners: Array) -> Array:
    """Signed distance to a closed polygon (n, 2), negative inside."""
    best = np.full(x.shape, np.inf, np.float32)
    sign = np.ones_like(x)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, 1, axis=0), strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        crossing = np.stack([y >= ay, y < by, ex * wy > ey * wx])
        sign = np.where(crossing.all(0) | ~crossing.any(0), -sign, sign)
    return (sign * np.sqrt(best)).astype(np.float32)


def _extrude(flat: Array, z: Array, half: float, rounding: float) -> Any:
    dz = np.abs(z) - half
    outside = np.hypot(np.maximum(flat, 0), np.maximum(dz, 0))
    return np.minimum(np.maximum(flat, dz), 0) + outside - rounding


def _star() -> Array:
    angles = np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.46)
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    points[:, 1] -= points[:, 1].min() + 0.93
    return points.astype(np.float32)


def _heart() -> Array:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    points = np.stack([x, y], 1) / 16.5
    points[:, 1] -= points[:, 1].min() + 0.93
    return points.astype(np.float32)


def _distance(kind: str, x: Array, y: Array, z: Array) -> Any:
    match kind:
        case "ball":
            return np.sqrt(x * x + (y + 0.05) ** 2 + z * z) - 0.95
        case "box":
            q = np.stack([np.abs(x) - 0.68, np.abs(y + 0.3) - 0.64, np.abs(z) - 0.68])
            return np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(0), 0) - 0.05
        case "cone":
            side = (np.hypot(x, z) - 0.4 * (1 - y)) * 0.928
            return np.maximum(side, -1 - y)
        case "cylinder":
            q = np.stack([np.hypot(x, z) - 0.6, np.abs(y + 0.1) - 0.86])
            return np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(0), 0) - 0.04
        case "ring":
            return np.hypot(np.hypot(x, y + 0.06) - 0.68, z) - 0.26
        case "star":
            return _extrude(_polygon_distance(x, y, _star()), z, 0.2, 0.06)
        case "heart":
            return _extrude(_polygon_distance(x, y, _heart()), z, 0.2, 0.09)
    raise KeyError(kind)


def yaw_angle(kind: str, yaw: int) -> float:
    """Radians the object is turned by, for `yaw` in 0 .. YAWS-1; round objects look the same at each."""
    spread = np.linspace(-1, 1, YAWS)[yaw]
    return float(np.radians({"box": 40 + 25 * spread, "ring": 40 * spread}.get(kind, 30 * spread)))


@cache
def sprite(kind: str, yaw: int) -> Sprite:
    """The sprite of a solid object at one of `YAWS` turns."""
    if kind in {"ball", "cone", "cylinder"} and yaw:
        return sprite(kind, 0)
    angle = yaw_angle(kind, yaw)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    down = np.array([0, -np.sin(PITCH), -np.cos(PITCH)], np.float32)
    up = np.array([0, np.cos(PITCH), -np.sin(PITCH)], np.float32)
    axis = (np.arange(RESOLUTION, dtype=np.float32) + 0.5) / RESOLUTION * 2 * SPAN - SPAN
    u, v = np.meshgrid(axis, -axis)
    origin = np.stack([u, v * up[1], v * up[2]], -1) - _START * down

    def field(points: Array) -> Array:
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        return np.asarray(_distance(kind, cos * x - sin * z, y, sin * x + cos * z), np.float32)

    travelled = np.zeros_like(u)
    for _ in range(_MARCH_STEPS):
        travelled += field(origin + travelled[..., None] * down) * 0.95
    points = origin + travelled[..., None] * down
    mask = (np.abs(field(points)) < 0.02) & (travelled < 2 * _START)
    eps = 0.015
    gradient = np.stack(
        [field(points + eps * axis3) - field(points - eps * axis3) for axis3 in np.eye(3, dtype=np.float32)],
        -1,
    )
    gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True) + 1e-6
    normals = np.stack([gradient[..., 0], gradient @ up, gradient @ -down], -1)
    relief = np.where(mask, _START - travelled, 0)
    return Sprite(
        mask.astype(np.float32),
        (normals * mask[..., None]).astype(np.float32),
        relief.astype(np.float32),
        foot=float((1 + np.cos(PITCH) / SPAN) / 2),
    )
