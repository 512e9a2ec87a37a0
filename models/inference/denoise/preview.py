"""A small preview of a picture, made from its latents by one linear map from 16 channels to RGB."""

import torch
from torch import Tensor

from models.inference.denoise.upload import upload
from models.job import Pixels

FACTORS = (
    (-0.0346, 0.0244, 0.0681), (0.0034, 0.0210, 0.0687), (0.0275, -0.0668, -0.0433),
    (-0.0174, 0.0160, 0.0617), (0.0859, 0.0721, 0.0329), (0.0004, 0.0383, 0.0115),
    (0.0405, 0.0861, 0.0915), (-0.0236, -0.0185, -0.0259), (-0.0245, 0.0250, 0.1180),
    (0.1008, 0.0755, -0.0421), (-0.0515, 0.0201, 0.0011), (0.0428, -0.0012, -0.0036),
    (0.0817, 0.0765, 0.0749), (-0.1264, -0.0522, -0.1103), (-0.0280, -0.0881, -0.0499),
    (-0.1262, -0.0982, -0.0778),
)  # fmt: skip
"""The best linear fit of the Flux autoencoder, which Z-Image uses too, as measured and published for ComfyUI.

Each row is what one channel of normalised latents adds to red, green and blue, from -1 to 1.
"""

BIAS = (-0.0329, -0.0718, -0.0851)


def preview(latents: Tensor) -> Pixels:
    """Pixels (height, pictures * width, 3), side by side, of latents (pictures, 16, height, width)."""
    factors, bias = (upload(torch.tensor(numbers), latents.device) for numbers in (FACTORS, BIAS))
    colours = latents.float().permute(2, 0, 3, 1).flatten(1, 2) @ factors + bias
    pixels: Pixels = ((colours / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).cpu().numpy()
    return pixels
