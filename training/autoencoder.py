"""The autoencoder: an `AutoencoderKL` that starts as 16x average pooling and learns the detail.

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
SHRINK: Final = 16
"""Pixels along the side of a latent cell: five levels, where the real model has four and 8."""
_CONSTANT: Final = 3.0
_CARRIED: Final = 8
_LOG_VARIANCE: Final = -8.0
_COLOUR_SPREAD, _DETAIL_SPREAD = 1.0, 0.6
"""Standard deviation of the scaled latents: coarse colour channels, and detail, which may be settled late."""


def build(preset: Preset) -> AutoencoderKL:
    """An untrained autoencoder that pools and enlarges; the first three of its 16 channels are colour."""
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
    cells = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    probe = F.interpolate(cells, scale_factor=2 ** (len(vae.config.block_out_channels) - 1))
    latents = vae.encoder(probe)[:, :3]
    vae.encoder.conv_out.weight[:3] /= (latents * cells).mean() / cells.square().mean()
    latents = F.pad(cells, (0, 0, 0, 0, 0, 13))
    target = probe
    vae.decoder.conv_out.weight[:3] /= (vae.decoder(latents) * target).mean() / target.square().mean()


def go_on_from(vae: AutoencoderKL, trained: AutoencoderKL, pictures: Tensor) -> None:
    """Gives `vae` the weights of a trained one of its own shape, or of one that it can be grown from."""
    trained = trained.float()
    if len(trained.config.block_out_channels) == len(vae.config.block_out_channels):
        vae.load_state_dict(trained.state_dict())
    else:
        grow(vae, trained, pictures)


@torch.no_grad()
def grow(vae: AutoencoderKL, smaller: AutoencoderKL, pictures: Tensor) -> None:
    """Gives `vae` the weights of a trained one with a level less, which knew pictures of half the side.

    It answers nearly as the smaller one, in the same latents, so that what was trained on them need not start
    anew. The decoder's new level only enlarges. The encoder's keeps some neighbours of a pixel apart, and its
    next convolution is fitted to `pictures` (N, 3, H, W), -1 to 1.
    """
    vae.decoder.load_state_dict(smaller.decoder.state_dict(), strict=False)
    nn.init.dirac_(vae.decoder.up_blocks[-2].upsamplers[0].conv.weight)
    nn.init.zeros_(vae.decoder.up_blocks[-2].upsamplers[0].conv.bias)
    for resnet in vae.decoder.up_blocks[-1].resnets:
        _pass_through(resnet)
    moved = {}
    for name, value in smaller.encoder.state_dict().items():
        if name.startswith("down_blocks."):
            _, level, rest = name.split(".", 2)
            moved[f"down_blocks.{int(level) + 1}.{rest}"] = value
        elif not name.startswith("conv_in."):
            moved[name] = value
    vae.encoder.load_state_dict(moved, strict=False)
    _fit_first_level(vae, smaller, pictures)


def _pass_through(resnet: Any) -> None:
    nn.init.zeros_(resnet.conv2.weight)
    nn.init.zeros_(resnet.conv2.bias)


def _fit_first_level(vae: AutoencoderKL, smaller: AutoencoderKL, pictures: Tensor) -> None:
    first = vae.encoder.conv_in
    first.weight.zero_()
    first.bias.zero_()
    for at, (row, column) in enumerate(((1, 1), (0, 1), (1, 0), (0, 0), (2, 2))):
        for channel in range(min(3, first.out_channels - 3 * at)):
            first.weight[3 * at + channel, channel, row, column] = 1
    down: Any = vae.encoder.down_blocks[0]
    wanted = smaller.encoder.conv_in(F.avg_pool2d(pictures, 2)).permute(0, 2, 3, 1).flatten(0, 2)
    padded = F.pad(first(pictures), (0, 1, 0, 1))
    windows = F.unfold(padded, 3, stride=2).transpose(1, 2).flatten(0, 1)
    windows = torch.cat([windows, torch.ones(len(windows), 1)], 1).double()
    # A ridge: neighbours are copies of one another in most places.
    normal = windows.T @ windows + 1e-4 * len(windows) * torch.eye(windows.shape[1])
    fitted = torch.linalg.solve(normal, windows.T @ wanted.double()).float()
    conv = down.downsamplers[0].conv
    conv.weight.copy_(fitted[:-1].T.reshape(conv.weight.shape))
    conv.bias.copy_(fitted[-1])
    for resnet in down.resnets:
        _pass_through(resnet)


def drawing_loss(error: Tensor) -> Tensor:
    """Of pixels' errors (B, 3, H, W): absolute ones, of pixels and of differences between neighbours.

    Where a pixel may be one of two colours, squared error is least with the haze between them, absolute error
    with one of them.
    """
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + edges


def reconstruction_loss(vae: AutoencoderKL, pixels: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Loss and mean squared error of pixels (B, 3, H, W) in -1 to 1, with `noise` of the latents' own spread
    added to them. A pull keeps the latents near zero, without which noise on them would mean nothing.
    """
    latents = vae.encoder(pixels)[:, :16].float()
    decoded = vae.decoder(with_noise(latents, noise)).float()
    error = decoded - pixels
    return drawing_loss(error) + 1e-3 * latents.square().mean(), error.square().mean()


def with_noise(latents: Tensor, share: float) -> Tensor:
    """Latents (B, 16, h, w) and noise of a `share` of each channel's spread."""
    spread = latents.detach().std((0, 2, 3), keepdim=True)
    return latents + share * spread * torch.randn_like(latents)


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
    """Pixels (B, 3, H, W) in -1 to 1 to the transformer's latents (B, 16, H/16, W/16), float32."""
    mean: Tensor = vae.encoder(pixels)[:, :16].float()
    return (mean - SHIFT_FACTOR) * SCALING_FACTOR


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """The transformer's latents to pixels (B, 3, H, W), -1 to 1."""
    return decoded(vae, latents).float().clamp(-1, 1)


def decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """As `decode`, to learn by."""
    pixels: Tensor = vae.decoder(latents / SCALING_FACTOR + SHIFT_FACTOR)
    return pixels
