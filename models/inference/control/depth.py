"""Depth maps, made by MiDaS as controlnet-aux runs it or by Depth Anything V2 as transformers does."""

import warnings
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from models.errors import CheckpointError
from models.inference.control.annotators import DETECTION_SIZE, Detector, import_annotators, read_weights
from models.job import Pixels
from models.weights.published import DEPTH_ANYTHING, MIDAS_FILE
from models.weights.resolve import detector_folder


def midas_network() -> nn.Module:
    """The network of MiDaS, on the meta device."""
    import_annotators()
    from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

    with warnings.catch_warnings(), torch.device("meta"):
        # controlnet-aux asks timm for the backbone by a name that timm has changed since.
        warnings.filterwarnings("ignore", message="Mapping deprecated model name")
        network: nn.Module = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    return network


def load_midas(device: str) -> Detector:
    """The detector MiDaS 3.0, DPT-hybrid, on `device`."""
    weights = read_weights(MIDAS_FILE)
    network = midas_network()
    from controlnet_aux.util import resize_image

    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as fault:
        raise CheckpointError(f"The detector weights {MIDAS_FILE} are not MiDaS's DPT-hybrid.") from fault
    network.eval().to(device)

    @torch.inference_mode()
    def detect(pixels: Pixels) -> Pixels:
        shown = torch.from_numpy(resize_image(pixels, DETECTION_SIZE)).to(device)
        nearness = network(shown.permute(2, 0, 1)[None].float() / 127.5 - 1.0)[0]
        return _as_map(nearness.cpu().numpy(), pixels)

    return detect


def load_depth_anything(device: str) -> Detector:
    """The detector Depth Anything V2, small (Apache-2.0; the larger ones are not for commercial use)."""
    folder = detector_folder(DEPTH_ANYTHING)
    processor = AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    network = AutoModelForDepthEstimation.from_pretrained(folder, dtype=torch.float32).eval().to(device)

    @torch.inference_mode()
    def detect(pixels: Pixels) -> Pixels:
        shown = processor(images=pixels, return_tensors="pt").to(device)
        return _as_map(network(**shown).predicted_depth[0].cpu().numpy(), pixels)

    return detect


BACKENDS: dict[str, Callable[[str], Detector]] = {
    "midas": load_midas,
    "depth-anything-v2": load_depth_anything,
}
"""The functions that load a detector on a device, by the names in `ModelSettings.depth_backend`."""


def _as_map(nearness: NDArray[np.float32], pixels: Pixels) -> Pixels:
    """Nearness (h, w), of any scale, spread over black to white at the size of `pixels`."""
    height, width = pixels.shape[:2]
    resized = cv2.resize(nearness, (width, height), interpolation=cv2.INTER_LINEAR)
    resized = resized - resized.min()
    if peak := resized.max():
        resized = resized / peak
    levels = (resized * 255).astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, axis=2)
