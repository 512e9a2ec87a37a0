"""The linear map from latents to a small picture."""

import numpy as np
import torch

from models.inference.denoise.preview import BIAS, FACTORS, preview


def test_no_latents_at_all_are_the_bias_and_each_channel_adds_its_colour() -> None:
    latents = torch.zeros(1, 16, 2, 3)
    latents[0, 4, 1, 2] = 2.0
    pixels = preview(latents)
    assert (pixels.shape, pixels.dtype) == ((2, 3, 3), np.uint8)
    grey = [int((bias / 2 + 0.5) * 255) for bias in BIAS]
    brighter = [
        int(((bias + 2 * factor) / 2 + 0.5) * 255) for bias, factor in zip(BIAS, FACTORS[4], strict=True)
    ]
    assert pixels[0, 0].tolist() == grey
    assert pixels[1, 2].tolist() == brighter


def test_wild_latents_stay_colours() -> None:
    pixels = preview(torch.full((1, 16, 4, 4), 1e6, dtype=torch.bfloat16))
    assert set(np.unique(pixels)) <= {0, 255}
