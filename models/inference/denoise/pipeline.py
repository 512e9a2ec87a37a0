"""The way from a prompt's embedding and a control picture to pixels: noise, latents, denoising, decoding.

These functions take tensors and one request's numbers. They know nothing of jobs, files or where the weights
stay between uses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImageTransformer2DModel,
)
from torch import Tensor
from torch.nn import functional as F

from models.errors import BadOutput
from models.inference.denoise.modulation import modulate
from models.inference.denoise.transformer import Conditioning, Control, Predict, predict
from models.inference.denoise.upload import upload
from models.job import Mask, Pixels, is_controlled

VARIED_SHARE = 0.5
"""The share of an embedding's values that `vary` changes."""
VARIANCE_STREAM = 0x5EED
"""Makes another seed of a seed, for the same one would draw the numbers of the latents' noise again."""
TRAIN_TIMESTEPS = 1000
"""The number of timesteps in training, from the published scheduler configuration."""


@dataclass(frozen=True)
class Kept:
    """What a run that redraws a part of a picture leaves as it is."""

    latents: Tensor
    """The picture's own latents, (1, channels, height, width)."""
    noise: Tensor
    """What the run begins with, (batch, channels, height, width)."""
    hole: Tensor
    """True where the picture is redrawn, (1, 1, height, width)."""

    def set_back(self, latents: Tensor, sigma: float) -> Tensor:
        """The latents with all but the hole as the picture has it at this noise level."""
        return torch.where(self.hole, latents, mix(self.latents, self.noise, sigma))


def draw_noise(seed: int, channels: int, height: int, width: int) -> Tensor:
    """Latents (1, channels, height, width), float32, drawn on the CPU: the same bytes on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, channels, height, width), generator=generator, dtype=torch.float32)


def vary(embeds: Tensor, seeds: Sequence[int], seed_variance: float) -> Tensor:
    """A prompt's embedding (tokens, hidden size) as the pictures of these seeds have it, (batch, tokens, …).

    Half of the values of each have noise added, whose standard deviation is `seed_variance` times that of
    the embedding: the recipe of InvokeAI's node "Seed Variance Enhancer", whose own default is 0.1. It is
    drawn on the CPU, as the latents' noise is. At 0 all have the embedding itself, (1, tokens, …).
    """
    if seed_variance == 0:
        return embeds[None]
    plain = embeds.float().cpu()
    # Added up in float64, for the order in which processors do that differs.
    deviation = seed_variance * plain.double().std().item()
    varied = []
    for seed in seeds:
        generator = torch.Generator("cpu").manual_seed(seed ^ VARIANCE_STREAM)
        noise = torch.randn(plain.shape, generator=generator)
        chosen = torch.rand(plain.shape, generator=generator) < VARIED_SHARE
        varied.append(plain + deviation * noise * chosen)
    return torch.stack(varied).to(embeds)


def noise_levels(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> Tensor:
    """`steps` sigmas from 1 down, shifted by the scheduler's own shift, and the final 0; float32, CPU."""
    scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps).tolist())
    sigmas: Tensor = scheduler.sigmas
    return sigmas


def mix(latents: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """A picture's latents at a noise level, float32; diffusers' `scale_noise`."""
    return sigma * noise + (1.0 - sigma) * latents.float()


def encode_picture(vae: AutoencoderKL, pixels: Pixels) -> Tensor:
    """Latents (1, channels, height / 8, width / 8) of an RGB picture of the output's size."""
    return _encode(vae, _levels(vae, pixels))


def encode_inpainting(vae: AutoencoderKL, pixels: Pixels, mask: Mask) -> Tensor:
    """The control latents (1, 33, height / 8, width / 8) of a picture that is to be redrawn within a mask.

    As VideoX-Fun's `ZImageControlPipeline` makes them without a control picture: 16 channels of zeros, 1 that
    is one where the picture stays, and 16 of the picture with its hole at 0, which is grey.
    """
    keep = upload(torch.from_numpy(~mask), vae.device)[None, None]
    latents = _encode(vae, _levels(vae, pixels) * keep)
    stays = F.interpolate(keep.to(latents.dtype), size=latents.shape[-2:], mode="nearest")
    return torch.cat([torch.zeros_like(latents), stays, latents], dim=1)


def latent_mask(mask: Mask, pixels_per_latent: int) -> Tensor:
    """The mask (1, 1, height / 8, width / 8): true where a latent stands for any pixel that is redrawn.

    diffusers looks at the first pixel alone, and so loses what is thinner than a latent.
    """
    pixels = torch.from_numpy(mask).float()[None, None]
    return F.max_pool2d(pixels, pixels_per_latent) > 0


def _levels(vae: AutoencoderKL, pixels: Pixels) -> Tensor:
    """A picture as the autoencoder takes it, (1, 3, height, width), -1 to 1."""
    return upload(torch.from_numpy(pixels), vae.device).permute(2, 0, 1)[None] / 127.5 - 1


def _encode(vae: AutoencoderKL, levels: Tensor) -> Tensor:
    latents: Tensor = vae.encode(levels.to(vae.dtype)).latent_dist.mode()
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
    kept: Kept | None = None,
    predict: Predict = predict,
) -> Tensor:
    """Euler's method from noise to a picture's latents, in float32; `on_step(step, steps, guess)` after each.

    `guess()` gives the latents that come out if the rest of the way is straight. `sigmas` are one more than
    the steps. A step outside the control window runs without the control branch. What is `kept` is told to
    the model by the control branch; after a step without it, it is set back. `predict` does what `predict` of
    the transformer does, perhaps in another way.
    """
    steps = len(sigmas) - 1
    # 1 - sigma, rounded as diffusers rounds it: the time embedding makes a thousandfold of any difference.
    # Copied to the device once for all steps: in a step the host waits for nothing.
    timesteps = upload((TRAIN_TIMESTEPS - sigmas * TRAIN_TIMESTEPS) / TRAIN_TIMESTEPS, latents.device)
    moments = modulate(transformer, control and control.controlnet, timesteps[:steps])
    deltas = sigmas.diff().tolist()
    for step in range(steps):
        active = control if is_controlled(step, steps, control_start, control_end) else None
        # The transformer predicts from noise to picture; the schedule runs the other way.
        velocity = -predict(transformer, conditioning, latents, moments[step], active)
        latents = latents + deltas[step] * velocity
        if kept is not None and active is None:
            latents = kept.set_back(latents, sigmas[step + 1].item())
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
            "A LoRA with too large a scale does this, and float16 may, where bfloat16 does not."
        )
    pixels: Pixels = (
        ((picture / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    )
    if not pixels.any():
        raise BadOutput("The model's output is black all over: the weights or a LoRA are broken.")
    return np.ascontiguousarray(pixels)
