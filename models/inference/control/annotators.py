"""What controlnet-aux's detectors share: the import of the package, reading weights, the size that they see.

The weights are pickles, which can run code as they are read; only plain tensors are taken from them here.
"""

import pickle
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from models.command import zturbo
from models.errors import CheckpointError, PreprocessError
from models.job import Pixels
from models.weights.resolve import detector_file

Detector = Callable[[Pixels], Pixels]
"""A function from a picture to its control map of the same size."""

DETECTION_SIZE = 512
"""The shorter side that a network sees, in pixels: controlnet-aux's default. Maps are made at full size."""


def import_annotators() -> None:
    """Import `controlnet_aux`, which imports every detector it has and warns of all that those use."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import controlnet_aux  # noqa: F401
    except (ImportError, AttributeError) as fault:
        raise PreprocessError(
            f"controlnet-aux cannot be imported here ({fault}). It does not work beside mediapipe 1.x: "
            "uninstall that, or install zturbo into an environment of its own."
        ) from fault


def read_weights(filename: str) -> dict[str, Tensor]:
    """The tensors of one of the detectors' weight files, on the CPU.

    Raises `WeightsMissing`, or `CheckpointError` when the file is damaged or holds anything but tensors.
    """
    path = detector_file(filename)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as fault:
        raise CheckpointError(
            f"The detector weights {filename} are damaged or hold more than tensors; "
            f"delete the file and run `{zturbo()} pull detectors`."
        ) from fault
    if not isinstance(weights, dict):
        raise CheckpointError(f"The detector weights {filename} are no named tensors.")
    return weights
