"""What the control branches train on: scenes with one kind of control map each, both as latents."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from training.captions import caption, placeless_caption
from training.flow import Captions, pad_captions
from training.latents import encode_pictures, fit_prompts
from training.maps import CONTROLS, Control, control_map
from training.pictures import in_parallel
from training.presets import Preset
from training.render import render
from training.runtime import Runtime
from training.scenes import Scene, sample_scene
from training.text_encoder import embed

_APART: Final = 10_000_000
_FIRST_SEED: Final = 500_000_000
"""Scenes of their own, so that the branch does not meet the base where it has been most."""
WORDINGS: Final = 2
"""Captions of each scene: a whole one, and one that leaves to the map what a map shows."""


@dataclass(frozen=True)
class ControlShard:
    """Scenes with maps of one kind; both latents (N, 16, h, w) float16, and WORDINGS captions of each, scene
    after scene.
    """

    control: Control
    latents: Tensor
    control_latents: Tensor
    captions: Captions

    def batch(self, count: int, device: str) -> tuple[Tensor, Tensor, Captions]:
        rows = torch.randint(len(self.latents), (count,))
        worded = rows * WORDINGS + torch.randint(WORDINGS, (count,))
        return (
            self.latents[rows].float().to(device),
            self.control_latents[rows].float().to(device),
            self.captions[worded].to(device),
        )


def control_scene(control: Control, seed: int, *, held_out: bool = False) -> Scene:
    """A scene for a kind of map: every pose map has a figure."""
    figures = 1.0 if control == "pose" else 0.16
    return sample_scene(
        seed, pairs=0 if control == "pose" else 0.2, figures=figures,
        held_out=held_out, kind="figure" if control == "pose" and held_out else None,
    )  # fmt: skip


def picture_and_map(control: Control, scene: Scene, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rendering = render(scene, size, size)
    return rendering.image, control_map(rendering, control)


def load_control_shards(
    preset: Preset, folder: Path, runtime: Runtime, vae: AutoencoderKL,
    encoder: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase,
) -> list[ControlShard]:  # fmt: skip
    """A shard of each kind of map, made and kept on disk where they are not there yet."""
    shards = []
    for at, control in enumerate(CONTROLS):
        path = folder / f"control-{control}.pt"
        if not path.exists():
            first = _FIRST_SEED + at * _APART
            scenes = [control_scene(control, first + seed) for seed in range(preset.control_scenes)]
            draw = partial(picture_and_map, control, size=preset.size)
            pairs = in_parallel(draw, scenes, runtime.workers)
            prompts = [
                words(scene, np.random.default_rng((scene.seed, 4)))
                for scene in scenes
                for words in (caption, placeless_caption)
            ]
            captions = pad_captions(embed(encoder, tokenizer, fit_prompts(tokenizer, prompts)))
            made = {
                "latents": encode_pictures(vae, np.stack([pair[0] for pair in pairs]), runtime),
                "control": encode_pictures(vae, np.stack([pair[1] for pair in pairs]), runtime),
                "states": captions.states,
                "lengths": captions.lengths,
            }
            unfinished = path.with_suffix(".partial")
            torch.save(made, unfinished)
            unfinished.replace(path)
        saved = torch.load(path, weights_only=True)
        captions = Captions(saved["states"], saved["lengths"])
        shards.append(ControlShard(control, saved["latents"], saved["control"], captions))
    return shards
