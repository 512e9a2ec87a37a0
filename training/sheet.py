"""Sheets of sampled pictures, written as training goes, from the same prompts and noise each time."""

import time
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, ZImageControlNetModel, ZImageTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from training import autoencoder, flow
from training.captions import caption
from training.flow import Captions
from training.pictures import to_pixels
from training.runtime import Runtime
from training.scenes import Scene, sample_scene
from training.text_encoder import embed
from training.vocabulary import HELD_OUT_SEEDS

COLUMNS: Final = 8
_EVERY_S: Final = 600.0


def held_out_scenes(count: int, **choice: Any) -> list[Scene]:
    """Scenes that training never saw; every other one shows a combination that it never saw either."""
    return [sample_scene(HELD_OUT_SEEDS + at, held_out=at % 2 == 1, **choice) for at in range(count)]


def grid(pictures: NDArray[np.uint8], columns: int = COLUMNS) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3) side by side in rows; N is a multiple of `columns`."""
    rows = pictures.reshape(-1, columns, *pictures.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


class Sheet:
    """Samples `scenes`' captions every few minutes into `folder`."""

    def __init__(
        self, folder: Path, size: int, vae: AutoencoderKL, encoder: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerBase, scenes: list[Scene],
    ) -> None:  # fmt: skip
        self._folder = folder
        self._vae = vae
        prompts = [caption(scene, np.random.default_rng(scene.seed)) for scene in scenes]
        self._captions: Captions = flow.pad_captions(embed(encoder, tokenizer, prompts))
        side = size // autoencoder.SHRINK
        self._noise = torch.randn(len(scenes), 16, side, side, generator=torch.Generator().manual_seed(0))
        self._written = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")

    def due(self) -> bool:
        return time.monotonic() - self._written > _EVERY_S

    def write(
        self,
        stage: str,
        step: int,
        transformer: ZImageTransformer2DModel,
        runtime: Runtime,
        controlnet: ZImageControlNetModel | None = None,
        control_latents: Tensor | None = None,
    ) -> NDArray[np.uint8]:
        """Writes STAGE-STEP.png and returns the pictures, (N, H, W, 3)."""
        noise, captions = self._noise.to(runtime.device), self._captions.to(runtime.device)
        with torch.no_grad(), runtime.autocast():
            ropes = flow.TableCache(transformer)(captions, noise)
            latents = flow.sample(transformer, noise, captions, ropes, 8, controlnet, control_latents)
            pictures = to_pixels(autoencoder.decode(self._vae, latents))
        write_png(self._folder / f"{stage}-{step:06}.png", grid(pictures))
        self._written = time.monotonic()
        return pictures
