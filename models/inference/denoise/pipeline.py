"""The way from a prompt's embedding and a control picture to pixels: noise, latents, denoising, decoding.

These functions take tensors and one request's numbers. They know nothing of jobs, files or where the weights
stay between uses.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImageTransformer2DModel,
)
from torch import Tensor

from models.errors import BadOutput
from models.inference.denoise.transformer import Conditioning, Control, predict
from models.job import Pixels, is_controlled

TRAIN_TIMESTEPS = 1000
"""The number of timesteps in training, from the published scheduler configuration."""


def draw_noise(seed: int, channels: int, height: int, width: int) -> Tensor:
    """Latents (1, channels, height, width), float32, drawn on the CPU: the same bytes on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, channels, height, width), generator=generator, dtype=torch.float32)


def noise_levels(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> Tensor:
    """`steps` sigmas from 1 down, shifted by the scheduler's own shift, and the final 0; float32, CPU."""
    scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps).tolist())
    sigmas: Tensor = scheduler.sigmas
    return sigmas


def encode_control(vae: AutoencoderKL, pixels: Pixels) -> Tensor:
    """Control latents (1, channels, height / 8, width / 8) of an RGB picture of the output's size."""
    picture = torch.from_numpy(pixels).to(vae.device).permute(2, 0, 1)[None]
    latents: Tensor = vae.encode((picture / 127.5 - 1).to(vae.dtype)).latent_dist.mode()
    shift: float = vae.config.shift_factor
    scale: float = vae.config.scaling_factor
    return (latents - shift) * scale


def denoise(
    transformer: ZImageTransformer2DModel,
    conditioning: Conditioning,
    latents: Tensor,
    sigmas: Tensor,
    on_step: Callable[[int, int, Callable[[], Tensor]], None],
    control: Control | None = None,
    control_start: float = 0.0,
    control_end: float = 1.0,
) -> Tensor:
    """Euler's method from noise to a picture's latents, in float32; `on_step(step, steps, guess)` after each.

    `guess()` gives the latents that come out if the rest of the way is straight. `sigmas` are one more than
    the steps. A step outside the control window runs without the control branch.
    """
    steps = len(sigmas) - 1
    # 1 - sigma, rounded as diffusers rounds it: the time embedding makes a thousandfold of any difference.
    timesteps = ((TRAIN_TIMESTEPS - sigmas * TRAIN_TIMESTEPS) / TRAIN_TIMESTEPS).tolist()
    deltas = sigmas.diff().tolist()
    for step in range(steps):
        active = control if is_controlled(step, steps, control_start, control_end) else None
        # The transformer predicts from noise to picture; the schedule runs the other way.
        velocity = -predict(transformer, conditioning, latents, timesteps[step], active)
        latents = latents + deltas[step] * velocity
        on_step(step + 1, steps, partial(_straight_on, latents, velocity, sigmas[step + 1].item()))
    return latents


def _straight_on(latents: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    return latents - sigma * velocity


def decode(vae: AutoencoderKL, latents: Tensor) -> Pixels:
    """The picture of latents (1, channels, height, width). Raises `BadOutput` when it is none."""
    latents = latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
    picture = vae.decode(latents, return_dict=False)[0][0].float()
    if not picture.isfinite().all():
        raise BadOutput(
            "The model's output is not a picture: it has values that are no number. "
            "A LoRA with too large a scale does this, and so does float16; bfloat16 does not."
        )
    pixels: Pixels = (
        ((picture / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    )
    if not pixels.any():
        raise BadOutput("The model's output is black all over: the weights or a LoRA are broken.")
    return np.ascontiguousarray(pixels)
