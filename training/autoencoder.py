"""The autoencoder: an `AutoencoderKL` that starts as 8x average pooling and learns the detail.

Eight "carried" channels run through the whole network: RGB, its negative, and plus and minus a constant.
SiLU of x less SiLU of -x is x, and the constant holds the one-group normalization's scale steady, so RGB
comes through the untrained network as it went in.
"""

from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from training.presets import Preset

SCALING_FACTOR: Final = 0.3611
SHIFT_FACTOR: Final = 0.1159
"""The real model's numbers; the trained network is folded so that they fit."""
_CONSTANT: Final = 3.0
_CARRIED: Final = 8
_LOG_VARIANCE: Final = -8.0
_COLOUR_SPREAD, _DETAIL_SPREAD = 1.0, 0.6
"""Standard deviation of the scaled latents: coarse colour channels, and detail, which may be settled late."""


def build(preset: Preset) -> AutoencoderKL:
    """An untrained autoencoder that pools and enlarges: 8x, 16 latent channels, the first three of them
    colour.
    """
    count = len(preset.vae_channels)
    vae = AutoencoderKL(
        block_out_channels=preset.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=1,
        sample_size=preset.size,
        scaling_factor=SCALING_FACTOR,
        shift_factor=SHIFT_FACTOR,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():
        _carry(vae)
        _calibrate(vae)
    return vae


def _carry_conv(conv: nn.Conv2d, taps: tuple[slice, slice], value: float) -> None:
    """The carried outputs copy the carried inputs through `taps`; the other outputs keep their random
    start.
    """
    conv.weight[:_CARRIED] = 0
    for channel in range(_CARRIED):
        conv.weight[channel, channel, taps[0], taps[1]] = value
    if conv.bias is not None:
        conv.bias[:_CARRIED] = 0


def _spread_conv(conv: Any) -> None:
    """Three inputs to the carried channels: RGB, its negative, and the two constants."""
    conv.weight[:_CARRIED] = 0
    conv.bias[:_CARRIED] = 0
    for channel in range(3):
        conv.weight[channel, channel, 1, 1] = 1
        conv.weight[3 + channel, channel, 1, 1] = -1
    conv.bias[6], conv.bias[7] = _CONSTANT, -_CONSTANT


def _gather_conv(conv: Any) -> None:
    """The first three outputs are RGB less its negative, which undoes the SiLU before."""
    conv.weight[:3] = 0
    conv.bias[:3] = 0
    for channel in range(3):
        conv.weight[channel, channel, 1, 1] = 1
        conv.weight[channel, 3 + channel, 1, 1] = -1


def _carry(vae: AutoencoderKL) -> None:
    centre, corner = (slice(1, 2), slice(1, 2)), (slice(0, 2), slice(0, 2))
    for part in (vae.encoder, vae.decoder):
        for name, module in part.named_modules():
            if name.endswith("conv_shortcut"):
                _carry_conv(module, (slice(0, 1), slice(0, 1)), 1)
            elif name.endswith("conv2"):
                module.weight[:_CARRIED] = 0
                module.bias[:_CARRIED] = 0
            elif name.endswith("to_out.0"):
                module.weight.zero_()
            elif name.endswith("downsamplers.0.conv"):
                _carry_conv(module, corner, 0.25)
            elif name.endswith("upsamplers.0.conv"):
                _carry_conv(module, centre, 1)
        _spread_conv(part.conv_in)
        _gather_conv(part.conv_out)
    vae.encoder.conv_out.weight[16:] = 0
    vae.encoder.conv_out.bias[16:] = _LOG_VARIANCE


def _calibrate(vae: AutoencoderKL) -> None:
    """Scales the last convolutions so that colour comes out at the size at which it went in."""
    probe = F.interpolate(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1, size=64)
    latents = vae.encoder(probe)[:, :3]
    vae.encoder.conv_out.weight[:3] /= (latents * F.avg_pool2d(probe, 8)).mean() / F.avg_pool2d(
        probe, 8
    ).square().mean()
    latents = F.pad(F.avg_pool2d(probe, 8), (0, 0, 0, 0, 0, 13))
    target = F.interpolate(latents[:, :3], scale_factor=8)
    vae.decoder.conv_out.weight[:3] /= (vae.decoder(latents) * target).mean() / target.square().mean()


def reconstruction_loss(vae: AutoencoderKL, pixels: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Loss and mean squared error of pixels (B, 3, H, W) in -1 to 1, with `noise` added to the latents.

    The loss is absolute and squared error, the latter of differences between neighbours too (absolute error
    alone would leave thin white lines out), and a pull on the latents towards zero without which noise on
    them would mean nothing.
    """
    latents = vae.encoder(pixels)[:, :16].float()
    decoded = vae.decoder(latents + noise * torch.randn_like(latents)).float()
    error = decoded - pixels
    edges = error.diff(dim=2).square().mean() + error.diff(dim=3).square().mean()
    squared = error.square().mean()
    return 0.5 * error.abs().mean() + 3 * squared + edges + 2e-3 * latents.square().mean(), squared


@torch.no_grad()
def fold_latent_scale(vae: AutoencoderKL, latents: Tensor) -> None:
    """Rewrites the convolutions beside the latents so that (latents - shift) * scaling has the spread wanted.

    `latents` (N, 16, h, w) are the encoder's means before folding. Each channel gets a gain of its own and
    all the same shift. Their means stay: the decoder pads with zeros beside the picture, and must meet
    there what it was trained on.
    """
    spread = torch.full((16,), _DETAIL_SPREAD)
    spread[:3] = _COLOUR_SPREAD
    gain = spread / SCALING_FACTOR / latents.std((0, 2, 3))
    out, into = vae.encoder.conv_out, vae.decoder.conv_in
    out.weight[:16] *= gain[:, None, None, None]
    out.bias[:16] = out.bias[:16] * gain + SHIFT_FACTOR
    into.weight /= gain[None, :, None, None]
    into.bias -= SHIFT_FACTOR * into.weight.sum((1, 2, 3))


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in -1 to 1 to the transformer's latents (B, 16, H/8, W/8), float32."""
    mean: Tensor = vae.encoder(pixels)[:, :16].float()
    return (mean - SHIFT_FACTOR) * SCALING_FACTOR


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """The transformer's latents to pixels (B, 3, H, W), -1 to 1."""
    pixels: Tensor = vae.decoder(latents / SCALING_FACTOR + SHIFT_FACTOR).float()
    return pixels.clamp(-1, 1)
