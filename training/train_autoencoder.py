"""The stage that trains the autoencoder and folds its latents to one scale."""

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL

from training import autoencoder
from training.pictures import in_parallel, mixed_picture, to_tensor
from training.presets import Preset
from training.progress import Progress, learning_rate, set_learning_rate
from training.runtime import Runtime

_PICTURES: Final = 1500
_FITTED: Final = 48
_CROP: Final = 128
_PEAK: Final = 2e-3
_NOISE: Final = 0.15


def train(preset: Preset, folder: Path, runtime: Runtime, start: Path | None) -> AutoencoderKL:
    """The trained autoencoder; loaded when it is there already. Crops of 128 pixels, every fourth batch
    whole pictures.

    `start` is an autoencoder whose latents stay as they are: nothing is learned here, and the stage of the
    decoder does the rest.
    """
    finished = folder / "autoencoder"
    if finished.exists():
        return AutoencoderKL.from_pretrained(finished).to(runtime.device).eval()
    torch.manual_seed(0)
    vae = autoencoder.build(preset)
    draw = partial(mixed_picture, shape=(preset.size, preset.size))
    if start is not None:
        pictures = np.stack(in_parallel(draw, range(_FITTED), runtime.workers))
        autoencoder.go_on_from(vae, AutoencoderKL.from_pretrained(start), to_tensor(pictures))
        vae.save_pretrained(finished)
        return vae.to(runtime.device).eval()
    vae = vae.to(runtime.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), _PEAK, betas=(0.9, 0.99), weight_decay=1e-4)
    progress = Progress(
        folder, "autoencoder", preset.minutes["autoencoder"], {"model": vae, "optimizer": optimizer}
    )
    pictures = np.stack(in_parallel(draw, range(_PICTURES), runtime.workers))
    rng = np.random.default_rng(progress.step)
    for fraction in progress.steps():
        set_learning_rate(optimizer, learning_rate(fraction, _PEAK, progress.step, hold=0.3))
        whole = progress.step % 4 == 3
        chosen = pictures[rng.integers(len(pictures), size=2 if whole else 8)]
        if not whole:
            x, y = rng.integers(preset.size - _CROP + 1, size=2)
            chosen = chosen[:, y : y + _CROP, x : x + _CROP]
        pixels = to_tensor(chosen).to(runtime.device, memory_format=torch.channels_last)
        with runtime.autocast():
            loss, error = autoencoder.reconstruction_loss(vae, pixels, _NOISE * rng.random())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.record(loss=loss.detach(), psnr=10 * torch.log10(4 / error.detach()))
    sample = to_tensor(pictures[:512])
    with torch.no_grad(), runtime.autocast():
        latents = torch.cat(
            [vae.encoder(part.to(runtime.device))[:, :16].float().cpu() for part in sample.split(16)]
        )
    vae = vae.cpu()
    autoencoder.fold_latent_scale(vae, latents)
    vae.save_pretrained(finished)
    return vae.to(runtime.device).eval()
