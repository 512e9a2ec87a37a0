"""How far a picture does what it was told: edges, depth, joints and style, as numbers."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.judge import MAP, joint_positions
from training.maps import canny_map

EDGE_TOLERANCE: Final = 1
"""Pixels, at 128: an edge counts as found when one lies this near."""
JOINT_TOLERANCE: Final = 0.05
"""Of the picture's side: a joint counts as found within this distance."""


def edge_agreement(picture: NDArray[np.uint8], canny: NDArray[np.uint8]) -> float:
    """F1 of the picture's own canny edges against the control map, both (H, W, 3)."""
    found, wanted = canny_map(picture)[..., 0] > 0, canny[..., 0] > 0
    reach = 2 * EDGE_TOLERANCE * picture.shape[0] // 128 + 1
    kernel = np.ones((reach, reach), np.uint8)
    near_wanted = np.asarray(cv2.dilate(wanted.astype(np.uint8), kernel)) > 0
    near_found = np.asarray(cv2.dilate(found.astype(np.uint8), kernel)) > 0
    precision = (found & near_wanted).sum() / max(found.sum(), 1)
    recall = (wanted & near_found).sum() / max(wanted.sum(), 1)
    return float(2 * precision * recall / max(precision + recall, 1e-6))


def outline_gradient(picture: NDArray[np.uint8], outline: NDArray[np.float32]) -> float:
    """How steep the picture (H, W, 3) is at the outline that the judge finds in it (logits, 32x32): the mean
    along it of the largest change of colour from a pixel to the next within one cell of it, 0 to 1.
    """
    height, width = picture.shape[:2]
    inside = np.asarray(cv2.resize(outline, (width, height), interpolation=cv2.INTER_LINEAR)) > 0
    edge = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    if not edge.any():
        return 0.0
    values = picture.astype(np.float32) / 255
    change = np.zeros((height, width), np.float32)
    change[:, 1:] = np.linalg.norm(np.diff(values, axis=1), axis=2)
    change[1:] = np.maximum(change[1:], np.linalg.norm(np.diff(values, axis=0), axis=2))
    reach = 2 * (height // MAP) + 1
    return float(np.asarray(cv2.dilate(change, np.ones((reach, reach), np.uint8)))[edge].mean())


def depth_agreement(maps: NDArray[np.float32], depth: NDArray[np.uint8]) -> float:
    """Correlation of the judged depth (maps (20, 32, 32)) with the control map (H, W, 3), 0 at the least.

    Of both the median of each row is taken off first: any ground rises to the horizon, and would agree with
    any other.
    """
    side = depth.shape[0] // MAP
    wanted = depth[..., 0].astype(np.float32).reshape(MAP, side, MAP, side).mean((1, 3))
    standing = [rows - np.median(rows, axis=1, keepdims=True) for rows in (maps[1], wanted)]
    if min(part.std() for part in standing) == 0:
        return 0.0
    return max(0.0, float(np.corrcoef(standing[0].ravel(), standing[1].ravel())[0, 1]))


def joints_found(maps: NDArray[np.float32], joints: NDArray[np.float32]) -> float:
    """Share of the 18 joints (fractions of width and height) that the judge finds in their places."""
    away = np.linalg.norm(joint_positions(maps) - joints, axis=1)
    return float((away < JOINT_TOLERANCE).mean())


def blueprint_measure(picture: NDArray[np.uint8]) -> float:
    """How blue the picture is on the whole: mean of blue less red, 0 to 1."""
    return float((picture[..., 2].astype(np.float32) - picture[..., 0]).mean() / 255)


def night_measure(picture: NDArray[np.uint8]) -> float:
    """How dark the picture is on the whole, 0 to 1."""
    return float(1 - picture.mean() / 255)
