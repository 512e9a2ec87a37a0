"""Pose maps with hands and faces, made by controlnet-aux's OpenPose. Its licence forbids commercial use."""

import colorsys
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from models.errors import CheckpointError, PreprocessError
from models.inference.control.annotators import DETECTION_SIZE, Detector, import_annotators, read_weights
from models.job import Pixels
from models.weights.published import BODY_POSE_FILE, FACE_FILE, HAND_POSE_FILE

BONES_A_FINGER = 4
HAND_BONES = 5 * BONES_A_FINGER


def load_openpose(device: str) -> Detector:
    """The three networks on `device`; raises `WeightsMissing` or `CheckpointError`."""
    import_annotators()
    from controlnet_aux.open_pose import OpenposeDetector
    from controlnet_aux.open_pose.body import Body
    from controlnet_aux.open_pose.face import Face, FaceNet
    from controlnet_aux.open_pose.hand import Hand
    from controlnet_aux.open_pose.model import bodypose_model, handpose_model
    from controlnet_aux.open_pose.util import draw_bodypose, draw_facepose
    from controlnet_aux.util import resize_image

    with torch.device("meta"):
        networks = bodypose_model(), handpose_model(), FaceNet()
    body = _around(Body, _filled(networks[0], BODY_POSE_FILE, flat=True))
    hand = _around(Hand, _filled(networks[1], HAND_POSE_FILE, flat=True))
    face = _around(Face, _filled(networks[2], FACE_FILE, flat=False))
    detector = OpenposeDetector(body, hand, face).to(device)

    def detect(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        canvas = np.zeros((height, width, 3), np.uint8)
        shown = resize_image(pixels, DETECTION_SIZE)
        try:
            # Positions come as fractions of the picture, so the skeletons are drawn sharp at any size.
            for pose in detector.detect_poses(shown, include_hand=True, include_face=True):
                draw_bodypose(canvas, pose.body.keypoints)
                draw_hand(canvas, pose.left_hand)
                draw_hand(canvas, pose.right_hand)
                draw_facepose(canvas, pose.face)
        except (cv2.error, IndexError, ValueError) as fault:
            raise PreprocessError(
                "preprocess: OpenPose failed on this picture; try depth or canny."
            ) from fault
        return canvas

    return detect


def draw_hand(canvas: Pixels, hand: list[Any] | None) -> None:
    """Draw 21 keypoints: the wrist, then four a finger, as fractions of the picture. Below 0: not seen.

    The result looks like that of controlnet-aux, whose own function imports matplotlib without requiring it.
    """
    height, width = canvas.shape[:2]
    points = [(int(point.x * width), int(point.y * height)) for point in hand or ()]
    for bone, end in enumerate(points[1:]):
        start = points[0 if bone % BONES_A_FINGER == 0 else bone]
        if min(*start, *end) > 0:
            colour = [255 * part for part in colorsys.hsv_to_rgb(bone / HAND_BONES, 1, 1)]
            cv2.line(canvas, start, end, colour, thickness=2)
    for point in points:
        if min(point) > 0:
            cv2.circle(canvas, point, 4, (0, 0, 255), thickness=-1)


def _filled(network: nn.Module, filename: str, *, flat: bool) -> nn.Module:
    """`network` with the weights of a file; in a `flat` one the names lack the network's first level."""
    weights = read_weights(filename)
    names = {name: name.partition(".")[2] if flat else name for name in network.state_dict()}
    try:
        network.load_state_dict({name: weights[given] for name, given in names.items()}, assign=True)
    except (KeyError, RuntimeError) as fault:
        raise CheckpointError(f"The detector weights {filename} are not OpenPose's.") from fault
    return network.eval()


def _around(kind: type[Any], network: nn.Module) -> Any:
    """One of controlnet-aux's estimators; its constructor would read the weights' file itself."""
    estimator: Any = object.__new__(kind)
    estimator.model = network
    return estimator
