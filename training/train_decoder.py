"""The stage that teaches the decoder to draw what the transformer makes.

A transformer's latents are not quite those of any picture: outlines are vague, shading wavers. Here pictures
are noised as far as the layout survives, the transformer takes the last steps, and the decoder learns to draw
the picture that it was. The latents stay what they are: the encoder is frozen.
"""

from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from training import autoencoder, flow
from training.autoencoder import SHRINK
from training.captions import caption
from training.flow import pad_captions
from training.latents import encode_pictures, fit_prompts
from training.pictures import in_parallel, picture, styled_picture, to_tensor
from training.presets import Preset
from training.progress import Progress, learning_rate, set_learning_rate
from training.runtime import Runtime
from training.scenes import sample_scene
from training.text_encoder import embed

_FIRST_SEED: Final = 800_000_000
_PICTURES: Final = 768
_STYLED: Final = 192
_STEPS: Final = 8
_DONE: Final = (5, 6, 7)
"""Of the eight steps: with 0.64, 0.5 and 0.3 of the noise left."""
_CROP: Final = 8
"""Side of a crop, latent cells."""
_BATCH: Final = 8
_NOISE: Final = 0.1
_PEAK: Final = 1e-3
_REACH: Final = 5
"""Pixels within which an outline may be displaced and is as steep all the same."""
_STEEP: Final = 0.5
"""Weight of the outlines' steepness beside the pixels' errors."""


def train_decoder(
    preset: Preset, folder: Path, runtime: Runtime, vae: AutoencoderKL, encoder: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase, transformer: ZImageTransformer2DModel,
) -> AutoencoderKL:  # fmt: skip
    """The autoencoder with its decoder trained further; loaded when it is there already."""
    finished = folder / "decoder"
    if finished.exists():
        return AutoencoderKL.from_pretrained(finished).to(runtime.device).eval()
    torch.manual_seed(8)
    shape = (preset.size, preset.size)
    seeds = range(_FIRST_SEED, _FIRST_SEED + _PICTURES + _STYLED)
    drawn = in_parallel(partial(picture, shape=shape), seeds[:_PICTURES], runtime.workers)
    drawn += in_parallel(partial(styled_picture, shape=shape), seeds[_PICTURES:], runtime.workers)
    pictures = np.stack(drawn)
    clean = encode_pictures(vae, pictures, runtime).float()
    scenes = [sample_scene(seed) for seed in seeds[:_PICTURES]]
    prompts = [caption(scene, np.random.default_rng((scene.seed, 8))) for scene in scenes]
    captions = pad_captions(embed(encoder, tokenizer, fit_prompts(tokenizer, prompts)))
    made = torch.cat(
        [
            _made(transformer, clean[:_PICTURES][rows], captions[rows], done, runtime)
            for rows, done in zip(torch.arange(_PICTURES).split(32), cycle(_DONE), strict=False)
        ]
    )
    vae = vae.train().to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), _PEAK, betas=(0.9, 0.99), weight_decay=1e-4)
    state = {"model": vae.decoder, "optimizer": optimizer}
    progress = Progress(folder, "decoder", preset.minutes["decoder"], state)
    rng = np.random.default_rng(progress.step)
    side = preset.size // SHRINK
    for fraction in progress.steps():
        set_learning_rate(optimizer, learning_rate(fraction, _PEAK, progress.step, warm_up=30, hold=0.3))
        whole = progress.step % 4 == 3
        rows = torch.from_numpy(rng.integers(len(clean), size=2 if whole else _BATCH))
        by_transformer = (rows < _PICTURES) & torch.from_numpy(rng.random(len(rows)) < 0.7)
        x, y, cells = (0, 0, side) if whole else (*rng.integers(side - _CROP + 1, size=2), _CROP)
        latents = autoencoder.with_noise(clean[rows], _NOISE * rng.random())
        latents = torch.where(by_transformer[:, None, None, None], made[rows % _PICTURES], latents)
        pixels = to_tensor(
            pictures[rows.numpy(), y * SHRINK : (y + cells) * SHRINK, x * SHRINK : (x + cells) * SHRINK]
        )
        with runtime.autocast():
            decoded = autoencoder.decoded(vae, latents[..., y : y + cells, x : x + cells].to(runtime.device))
        pixels = pixels.to(runtime.device)
        error = decoded.float() - pixels
        unlike = (steepness(decoded.float()) - steepness(pixels)).abs().mean()
        loss = error.abs().mean() + _STEEP * unlike
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        psnr = 10 * torch.log10(4 / error.detach().square().mean())
        progress.record(loss=loss.detach(), unlike=unlike.detach(), psnr=psnr)
    vae.requires_grad_(True).save_pretrained(finished)
    return vae.eval()


def steepness(pixels: Tensor) -> Tensor:
    """The largest change of colour from a pixel to the next, within reach of each pixel (B, 1, H, W).

    Where a transformer has moved an outline, the error of pixels is least with the haze between both places;
    this is least with an outline, wherever it is.
    """
    across, down = pixels.diff(dim=3), pixels.diff(dim=2)
    change = F.pad(across, (0, 1)).square() + F.pad(down, (0, 0, 0, 1)).square()
    return F.max_pool2d(change.sum(1, keepdim=True).add(1e-6).sqrt(), _REACH, 1, _REACH // 2)


@torch.no_grad()
def _made(
    transformer: ZImageTransformer2DModel,
    latents: Tensor,
    captions: flow.Captions,
    done: int,
    runtime: Runtime,
) -> Tensor:
    """What the transformer makes of latents (B, 16, h, w) that are noised as after `done` steps."""
    latents, captions = latents.to(runtime.device), captions.to(runtime.device)
    sigma = flow.step_sigmas(_STEPS)[done]
    noisy = (1 - sigma) * latents + sigma * torch.randn_like(latents)
    ropes = flow.TableCache(transformer)(captions, latents)
    with runtime.autocast():
        return flow.sample(transformer, noisy, captions, ropes, _STEPS, done=done).float().cpu()
