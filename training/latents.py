"""What the transformer trains on: scenes as latents with their captions' embeddings, in shards on disk.

Each shard has one shape of picture and one padded caption length, so that any rows of it make a batch.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from training import autoencoder
from training.captions import caption
from training.flow import Captions, pad_captions
from training.labels import cell_labels
from training.pictures import Shape, in_parallel, to_tensor
from training.presets import Preset
from training.render import render
from training.runtime import Runtime
from training.scenes import sample_scene
from training.text_encoder import embed
from training.tokens import PAD_TO, prompt_text, token_batch

SHARD: Final = 500
WORDINGS: Final = 3
_LONG_EVERY: Final = 8
# Width and height in patches; every third shard has a shape that presets ask for and that is not square.
_SQUARE: Final = (8, 8)
_OTHER_SHAPES: Final = ((8, 6), (6, 8), (9, 5), (5, 9), (9, 6), (6, 9))
_SHAPE_EVERY: Final = 3


@dataclass(frozen=True)
class Shard:
    """`SHARD` scenes: latents (N, 16, h, w) float16, what each cell shows (N, 2, 2h, 2w), and WORDINGS
    captions of each, scene after scene.
    """

    latents: Tensor
    labels: Tensor
    captions: Captions

    def batch(self, count: int, device: str) -> tuple[Tensor, Tensor, Captions]:
        """Random scenes, each with its labels and one of its captions."""
        rows = torch.randint(len(self.latents), (count,))
        worded = rows * WORDINGS + torch.randint(WORDINGS, (count,))
        return (
            self.latents[rows].float().to(device),
            self.labels[rows].to(device),
            self.captions[worded].to(device),
        )


def picture_and_labels(seed: int, shape: Shape) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The training picture of a seed, (height, width, 3), and `cell_labels` of it."""
    scene = sample_scene(seed)
    rendering = render(scene, *shape)
    return rendering.image, cell_labels(scene, rendering)


def shard_shape(index: int, size: int) -> tuple[int, int]:
    """Width and height in pixels of a shard's pictures."""
    shape = _SQUARE
    if index % _SHAPE_EVERY == _SHAPE_EVERY - 1:
        shape = _OTHER_SHAPES[index // _SHAPE_EVERY % len(_OTHER_SHAPES)]
    return shape[0] * size // 8, shape[1] * size // 8


def shard_captions(index: int) -> list[str]:
    """The captions of a shard's scenes; in every eighth shard they are too long for 32 tokens."""
    fillers = 5 if index % _LONG_EVERY == _LONG_EVERY - 1 else 0
    scenes = [sample_scene(seed) for seed in shard_seeds(index)]
    return [
        caption(scene, np.random.default_rng((scene.seed, 3, wording)), fillers=fillers)
        for scene in scenes
        for wording in range(WORDINGS)
    ]


def shard_seeds(index: int) -> range:
    return range(index * SHARD, (index + 1) * SHARD)


def load_shards(
    preset: Preset,
    folder: Path,
    runtime: Runtime,
    vae: AutoencoderKL,
    encoder: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
) -> list[Shard]:
    """All of the preset's shards, drawing and encoding those that are not on disk yet."""
    return [
        _load(folder / f"shard-{index:03}.pt", index, preset, runtime, vae, encoder, tokenizer)
        for index in range(preset.shards)
    ]


def _load(
    path: Path,
    index: int,
    preset: Preset,
    runtime: Runtime,
    vae: AutoencoderKL,
    encoder: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
) -> Shard:
    if not path.exists():
        draw = partial(picture_and_labels, shape=shard_shape(index, preset.size))
        drawn = in_parallel(draw, shard_seeds(index), runtime.workers)
        latents = encode_pictures(vae, np.stack([pixels for pixels, _ in drawn]), runtime)
        labels = torch.from_numpy(np.stack([labels for _, labels in drawn]))
        captions = pad_captions(embed(encoder, tokenizer, fit_prompts(tokenizer, shard_captions(index))))
        saved = {"latents": latents, "labels": labels, "states": captions.states, "lengths": captions.lengths}
        unfinished = path.with_suffix(".partial")
        torch.save(saved, unfinished)
        unfinished.replace(path)
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return Shard(loaded["latents"], loaded["labels"], Captions(loaded["states"], loaded["lengths"]))


def fit_prompts(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[str]:
    """In a shard of short captions the few that exceed 32 tokens lose their last words, not to stretch them
    all.
    """
    _, lengths = token_batch(tokenizer, [prompt_text(tokenizer, prompt) for prompt in prompts])
    if (lengths > PAD_TO).float().mean() > 0.5:
        return prompts
    # A word is at least a token.
    surplus = (lengths - PAD_TO).clamp(min=0).tolist()
    return [
        " ".join(prompt.split()[: -count or None]) for prompt, count in zip(prompts, surplus, strict=True)
    ]


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pixels: Any, runtime: Runtime) -> Tensor:
    """Pictures (N, H, W, 3) to the transformer's latents, float16 on the CPU."""
    parts = []
    for at in range(0, len(pixels), 32):
        batch = to_tensor(pixels[at : at + 32]).to(runtime.device, memory_format=torch.channels_last)
        with runtime.autocast():
            parts.append(autoencoder.encode(vae, batch).half().cpu())
    return torch.cat(parts)
