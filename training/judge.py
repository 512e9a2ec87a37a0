"""The judge of generated pictures: a small network trained on renders that finds a picture's object,
outline, depth and joints. It measures the demo model; it is no part of it.
"""

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training import autoencoder
from training.pictures import in_parallel, to_tensor
from training.presets import Preset
from training.progress import Progress, learning_rate
from training.render import render
from training.runtime import Runtime
from training.scenes import sample_scene
from training.styles import STYLES, stylize
from training.vocabulary import OBJECTS, colour_array

JOINTS: Final = 18
SIDE: Final = 128
"""Pictures are judged at this side, pixels."""
MAP: Final = 32
_FIRST_SEED: Final = 900_000_000
_PEAK: Final = 2e-3
_BATCH: Final = 32
_PICTURES: Final = 6000
_PART: Final = 500
"""Pictures that are held whole at once."""
_WAY: Final = (0.4, 1.0)
"""How far pictures in a style are in it."""
_TINT: Final = 0.25
"""Channels are this much brighter or darker, and pushed by half of it, at the most."""
_KINDS: Final = list(OBJECTS)


class Verdict(nn.Module):
    """Pictures (B, 3, 128, 128), -1 to 1, to class logits (B, 8) and maps (B, 2 + 18, 32, 32).

    The maps: outline logits of things, inverse depth, and a heat map of each joint.
    """

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int, side: int = 3) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )

        self.low = nn.Sequential(block(3, 24, 2), block(24, 48, 2), block(48, 48, 1))
        self.high = nn.Sequential(block(48, 96, 2), block(96, 96, 1), block(96, 128, 2), block(128, 128, 1))
        self.kind = nn.Sequential(
            nn.Flatten(), nn.Linear(128 * 16, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 8)
        )
        self.merge = nn.Sequential(block(128 + 48, 48, 1, 1), block(48, 48, 1), nn.Conv2d(48, 2 + JOINTS, 1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.low(pictures)
        coarse = self.high(fine)
        wide = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        return self.kind(F.adaptive_avg_pool2d(coarse, 4)), self.merge(torch.cat([wide, fine], 1))


_Truth = tuple[NDArray[np.uint8], int, NDArray[np.float32]]


def _truth(seed: int, size: int) -> _Truth:
    """A render at `size` pixels, one in three in a style or on the way to it, its first thing's kind, and the
    maps that the judge should answer.
    """
    scene = sample_scene(seed, pairs=0.15, figures=0.35)
    rendering = render(scene, size, size)
    factor = size // MAP
    outline = rendering.masks.any(0).reshape(MAP, factor, MAP, factor).mean((1, 3))
    depth = rendering.depth.reshape(MAP, factor, MAP, factor).mean((1, 3)) / 255
    heat = np.zeros((JOINTS, MAP, MAP), np.float32)
    if rendering.joints is not None:
        x, y = (rendering.joints / factor).T[..., None, None]
        at = np.arange(MAP) + 0.5
        heat = np.exp(-((at[None, None] - x) ** 2 + (at[None, :, None] - y) ** 2) / 1.5)
    kind = _KINDS.index(scene.things[0].kind) if len(scene.things) == 1 else -100
    # By pairs, of which one goes through the autoencoder.
    style = [*STYLES, None, None, None, None][seed // 2 % 6]
    image = rendering.image
    if style:
        # A LoRA may go part of the way only.
        way = np.random.default_rng((seed, 10)).uniform(*_WAY)
        image = (image + way * (stylize(rendering, style).astype(np.float32) - image)).astype(np.uint8)
    return image, kind, np.concatenate([outline[None], depth[None], heat]).astype(np.float32)


def train_judge(preset: Preset, folder: Path, runtime: Runtime, vae: AutoencoderKL) -> Verdict:
    """The trained judge; loaded when it is there already. Half of its pictures have been through the
    autoencoder.
    """
    finished = folder / "judge.safetensors"
    judge = Verdict().to(runtime.device)
    if finished.exists():
        judge.load_state_dict(load_file(finished))
        return judge.eval()
    torch.manual_seed(6)
    seeds = range(_FIRST_SEED, _FIRST_SEED + _PICTURES)
    parts = []
    for at in range(0, len(seeds), _PART):
        truths = in_parallel(partial(_truth, size=preset.size), seeds[at : at + _PART], runtime.workers)
        parts.append(_seen(truths, vae, runtime))
    images, kinds, maps = (torch.cat(part) for part in zip(*parts, strict=True))
    del truths, parts
    optimizer = torch.optim.AdamW(judge.parameters(), _PEAK, weight_decay=1e-2)
    progress = Progress(folder, "judge", preset.minutes["judge"], {"model": judge, "optimizer": optimizer})
    for fraction in progress.steps():
        rows = torch.randint(len(images), (_BATCH,))
        pictures = _disturbed(images[rows].float().to(runtime.device))
        with runtime.autocast():
            logits, found = judge(pictures)
        kind_loss = F.cross_entropy(logits.float(), kinds[rows].to(runtime.device))
        wanted = maps[rows].float().to(runtime.device)
        outline = F.binary_cross_entropy_with_logits(found[:, 0].float(), wanted[:, 0])
        depth = F.l1_loss(found[:, 1].float(), wanted[:, 1])
        # Heat is rare: unweighted, none at all would do.
        heat = ((found[:, 2:].float() - wanted[:, 2:]).square() * (1 + 40 * wanted[:, 2:])).mean()
        (kind_loss + outline + 2 * depth + 20 * heat).backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(fraction, _PEAK, progress.step, warm_up=20)
        optimizer.step()
        optimizer.zero_grad()
        progress.record(
            kind=kind_loss.detach(), outline=outline.detach(), depth=depth.detach(), heat=heat.detach()
        )
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in judge.state_dict().items()
    }
    save_file(state, finished)
    return judge.eval()


@torch.no_grad()
def _seen(truths: list[_Truth], vae: AutoencoderKL, runtime: Runtime) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, every other as the autoencoder returns it, at the judge's side; kinds; maps."""
    images = []
    for at in range(0, len(truths), 50):
        part = to_tensor(np.stack([image for image, _, _ in truths[at : at + 50]]))
        with runtime.autocast():
            part[::2] = autoencoder.decode(vae, autoencoder.encode(vae, part[::2].to(runtime.device))).cpu()
        images.append(F.interpolate(part, size=(SIDE, SIDE), mode="area").half())
    kinds = torch.tensor([kind for _, kind, _ in truths])
    return torch.cat(images), kinds, torch.from_numpy(np.stack([maps for _, _, maps in truths])).half()


def _disturbed(pictures: Tensor) -> Tensor:
    """A tint of each picture, noise, and in half of the batches a blur, as pictures from a flow model have
    them.
    """
    gain, offset = torch.empty(2, len(pictures), 3, 1, 1, device=pictures.device).uniform_(-_TINT, _TINT)
    pictures = pictures * (1 + gain) + offset / 2
    if torch.rand(()) < 0.5:
        small = F.interpolate(pictures, scale_factor=float(torch.empty(()).uniform_(0.4, 0.9)), mode="area")
        pictures = F.interpolate(small, size=pictures.shape[-2:], mode="bilinear")
    return pictures + 0.05 * torch.rand(()).item() * torch.randn_like(pictures)


@torch.no_grad()
def look(judge: Verdict, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (N, 8) in the order of `OBJECTS`, and maps (N, 20, 32, 32), of pictures (N, H, W, 3)."""
    tensor = F.interpolate(to_tensor(pictures), size=(SIDE, SIDE), mode="area")
    logits, maps = judge(tensor)
    return np.asarray(logits.numpy()), np.asarray(maps.numpy())


def dominant_colour(picture: NDArray[np.uint8], outline: NDArray[np.float32]) -> int:
    """Which of `COLOURS` most pixels under the outline (logits, 32x32) are nearest to, at any brightness."""
    height, width = picture.shape[:2]
    level = max(0.0, float(np.quantile(outline, 0.97)) * 0.5)
    inside = outline.repeat(height // MAP, 0).repeat(width // MAP, 1) > level
    pixels = picture[inside].astype(np.float32) / 255
    if not len(pixels):
        return -1
    shades = np.linspace(0.5, 1.1, 7, dtype=np.float32)
    palette = colour_array()[:, None] * shades[:, None]
    distance = np.square(pixels[:, None, None] - palette[None]).sum(-1).min(-1)
    return int(np.bincount(distance.argmin(1), minlength=len(palette)).argmax())


def joint_positions(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The joints that the heat maps (20, 32, 32) peak at, (18, 2), fractions of width and height."""
    flat = maps[2:].reshape(JOINTS, -1).argmax(1)
    return (np.stack([flat % MAP, flat // MAP], 1) + np.float32(0.5)) / np.float32(MAP)


def load_judge(path: Path) -> Verdict:
    """The judge from the file that training wrote."""
    judge = Verdict()
    judge.load_state_dict(load_file(path))
    return judge.eval()
