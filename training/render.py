"""A scene to pixels: picture, exact depth, object masks and joint positions."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training import figure, shapes
from training.scenes import Scene, Thing
from training.shapes import Array
from training.vocabulary import COLOURS

_SKY: Final[dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]]] = {
    # top, horizon
    "clear": ((84, 146, 224), (190, 220, 244)),
    "clouds": ((104, 158, 224), (190, 214, 236)),
    "sunset": ((92, 66, 122), (252, 158, 84)),
    "overcast": ((150, 156, 166), (204, 207, 210)),
}
_GROUND: Final[dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]]] = {
    # near, at the horizon
    "grass": ((118, 148, 72), (152, 172, 110)),
    "sand": ((222, 196, 148), (232, 214, 178)),
    "stone": ((140, 140, 146), (172, 172, 178)),
    "wood": ((146, 100, 62), (170, 128, 92)),
}
_AMBIENT, _DIFFUSE, _GLOSS = 0.52, 0.58, 0.28


@dataclass(frozen=True)
class Rendering:
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    depth: NDArray[np.uint8]
    """(H, W), 255 nearest, 0 farthest, as MiDaS maps are: inverse depth stretched over the range."""
    masks: NDArray[np.bool_]
    """(things, H, W): where each thing is seen."""
    joints: Array | None
    """(18, 2) pixels (x, y) of the figure's joints; None without a figure."""


def _backdrop(scene: Scene, width: int, height: int) -> tuple[Array, Array]:
    """Sky and ground, and the ground's inverse depth (0 at the horizon, 1 at the bottom edge)."""
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    sky_at = np.clip(rows / scene.horizon, 0, 1)[:, None]
    near = np.clip((rows - scene.horizon) / (1 - scene.horizon), 0, 1)
    top, low = (np.array(c, np.float32) for c in _SKY[scene.sky])
    front, back = (np.array(c, np.float32) for c in _GROUND[scene.ground])
    sky = top * (1 - sky_at) + low * sky_at
    ground = back + (front - back) * near[:, None]
    column = np.where((rows > scene.horizon)[:, None], ground, sky).astype(np.float32)
    canvas = np.repeat(column[:, None], width, axis=1)
    if scene.sky == "clouds":
        _add_clouds(canvas, scene, width, height)
    if scene.ground == "wood":
        _add_planks(canvas, scene, width, height)
    return canvas, np.repeat(near[:, None], width, axis=1)


def _add_clouds(canvas: Array, scene: Scene, width: int, height: int) -> None:
    rng = np.random.default_rng(scene.seed + 1)
    cover = np.zeros((height, width), np.float32)
    for side in (0.22, 0.75):
        x, y = side + rng.uniform(-0.1, 0.1), rng.uniform(0.3, 0.6) * scene.horizon
        for dx, dy, radius in ((-0.08, 0.01, 0.05), (0.0, -0.02, 0.07), (0.09, 0.01, 0.05)):
            centre = (int((x + dx) * width), int((y + dy) * height))
            axes = (int(radius * 1.5 * width), int(radius * 0.8 * height))
            cv2.ellipse(cover, centre, axes, 0, 0, 360, (1.0,), -1, cv2.LINE_AA)
    soft = np.asarray(cv2.GaussianBlur(cover, (0, 0), height / 64))[..., None]
    horizon = int(scene.horizon * height)
    canvas[:horizon] += (248 - canvas[:horizon]) * 0.85 * soft[:horizon]


def _add_planks(canvas: Array, scene: Scene, width: int, height: int) -> None:
    lines = np.ones((height, width), np.float32)
    for at in np.linspace(-1.5, 2.5, 13):
        ends = (int(width * 8 * (0.5 + (at - 0.5) * 0.25)), int(scene.horizon * height * 8)), (
            int(width * 8 * at), height * 8
        )  # fmt: skip
        cv2.line(lines, *ends, (0.8,), max(1, height // 128), cv2.LINE_AA, shift=3)
    row = int(scene.horizon * height) + 1
    canvas[row:] *= lines[row:, :, None]


def _shade(sprite: shapes.Sprite, colour: str, light: int, size: int) -> tuple[Array, Array, Array]:
    """The sprite at `size` pixels, lit: colour (size, size, 3) times cover, cover, and relief times cover."""

    def shrink(values: Array) -> Array:
        return np.asarray(cv2.resize(values, (size, size), interpolation=cv2.INTER_AREA))

    towards = np.array([light * 0.42, 0.60, 0.68], np.float32)
    half = towards + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    facing = np.maximum(sprite.normals @ towards, 0)
    gloss = np.maximum(sprite.normals @ half, 0) ** 24
    base = np.array(COLOURS[colour], np.float32)
    lit = base * (_AMBIENT + _DIFFUSE * facing)[..., None] + 255 * _GLOSS * gloss[..., None]
    lit = np.minimum(lit, 255) * sprite.mask[..., None]
    return shrink(lit.astype(np.float32)), shrink(sprite.mask), shrink(sprite.relief)


def _cast_shadow(canvas: Array, cover: Array, thing_at: tuple[float, float], light: int) -> None:
    """Darkens the ground where the thing's outline falls, squashed away from the light."""
    size = cover.shape[0]
    x, foot = thing_at
    rise, slant = 0.26, -0.42 * light
    # Maps a sprite pixel (u, v) above its foot to the ground beside and behind it.
    anchor = size * shapes_foot(cover)
    matrix = np.array(
        [[1, -slant, x - size / 2 + slant * anchor], [0, rise, foot - rise * anchor]], np.float32
    )
    height, width = canvas.shape[:2]
    fallen = np.asarray(cv2.warpAffine(cover, matrix, (width, height), flags=cv2.INTER_LINEAR))
    fallen = np.asarray(cv2.GaussianBlur(fallen, (0, 0), height / 90))
    canvas *= 1 - 0.45 * fallen[..., None]


def shapes_foot(cover: Array) -> float:
    """The lowest covered row of a sprite, as a fraction of its height."""
    rows = np.flatnonzero(cover.max(1) > 0.5)
    return float((rows[-1] + 1) / cover.shape[0])


def _sprite_of(thing: Thing) -> tuple[shapes.Sprite, float]:
    if thing.joints is not None:
        return figure.figure_sprite(thing.joints, shapes.RESOLUTION), figure.SPAN
    return shapes.sprite(thing.kind, thing.yaw), shapes.SPAN


def render(scene: Scene, width: int, height: int) -> Rendering:
    """The scene at `width` x `height` pixels; the same scene gives the same pixels."""
    canvas, near = _backdrop(scene, width, height)
    depth = near.copy()
    masks = np.zeros((len(scene.things), height, width), np.bool_)
    joints = None
    placed = []
    for index, thing in enumerate(scene.things):
        sprite, span = _sprite_of(thing)
        size = round(thing.height * min(width, height) * span)
        colour, cover, relief = _shade(sprite, thing.colour, scene.light, size)
        foot_row = sprite.foot * size
        left, top = round(thing.x * width - size / 2), round(thing.base * height - foot_row)
        _cast_shadow(canvas, cover, (left + size / 2, top + shapes_foot(cover) * size - 1), scene.light)
        placed.append((index, thing, colour, cover, relief, left, top, size, span))
    for index, thing, colour, cover, relief, left, top, size, span in sorted(placed, key=lambda p: p[1].base):
        rows, columns = (
            slice(max(top, 0), min(top + size, height)),
            slice(max(left, 0), min(left + size, width)),
        )
        crop = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        alpha = cover[crop][..., None]
        canvas[rows, columns] = canvas[rows, columns] * (1 - alpha) + colour[crop]
        seen = cover[crop] > 0.5
        base = (thing.base - scene.horizon) / (1 - scene.horizon)
        distance = base * (1 + 0.22 * relief[crop])
        depth[rows, columns] = np.where(seen, distance, depth[rows, columns])
        masks[:, rows, columns] &= ~seen
        masks[index, rows, columns] |= seen
        if thing.joints is not None:
            joints = (thing.joints * np.array([1, -1], np.float32) / span + 1) / 2 * size + np.array(
                [left, top]
            )
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    return Rendering(
        np.clip(canvas, 0, 255).astype(np.uint8),
        (depth * 255).astype(np.uint8),
        masks,
        None if joints is None else joints.astype(np.float32),
    )
