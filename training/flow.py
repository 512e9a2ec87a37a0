"""Rectified flow in batches, on the server's own denoising step: conditioning, the training target, sampling.

Latents at `sigma` are (1 - sigma) * picture + sigma * noise; the transformer is told 1 - sigma and answers
with picture - noise, which the pipeline negates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from diffusers import ZImageControlNetModel, ZImageTransformer2DModel
from torch import Tensor

from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.transformer import Conditioning, Control, condition, control_tokens, predict
from training.presets import Preset
from training.text_encoder import WIDTH
from training.tokens import PAD_TO

SHIFT: Final = 3.0
_PURE_NOISE_SHARE: Final = 0.08


@dataclass(frozen=True)
class Captions:
    """A batch of prompts: embeddings (B, T, WIDTH), T a multiple of 32, and how many of the T are the
    prompt's.
    """

    states: Tensor
    lengths: Tensor

    def to(self, device: str) -> "Captions":
        return Captions(self.states.to(device), self.lengths.to(device))

    def __getitem__(self, rows: Tensor) -> "Captions":
        return Captions(self.states[rows], self.lengths[rows])


def pad_captions(embeddings: Sequence[Tensor]) -> Captions:
    """Pads embeddings (tokens, WIDTH) of any lengths to the next common multiple of 32."""
    lengths = torch.tensor([len(row) for row in embeddings])
    total = -(-int(lengths.max()) // PAD_TO) * PAD_TO
    states = torch.zeros(len(embeddings), total, embeddings[0].shape[1], dtype=embeddings[0].dtype)
    for row, embedding in zip(states, embeddings, strict=True):
        row[: len(embedding)] = embedding
    return Captions(states, lengths)


def build_transformer(preset: Preset) -> Any:
    """An untrained transformer at the preset's size; its output starts at zero."""
    head = preset.dim // preset.heads
    transformer = ZImageTransformer2DModel(
        dim=preset.dim,
        n_layers=preset.layers,
        n_refiner_layers=1,
        n_heads=preset.heads,
        n_kv_heads=preset.heads,
        cap_feat_dim=WIDTH,
        axes_dims=[head // 4, head * 3 // 8, head * 3 // 8],
        axes_lens=[1536, 512, 512],
    )
    torch.nn.init.normal_(transformer.cap_pad_token, std=0.02)
    torch.nn.init.normal_(transformer.x_pad_token, std=0.02)
    torch.nn.init.zeros_(transformer.all_final_layer["2-1"].linear.weight)
    return use_own_blocks(transformer)


RopeTables = tuple[Tensor, Tensor]
"""Rotary tables of the image and of the whole sequence."""


class TableCache:
    """The rotary tables of a transformer by picture shape and caption length."""

    def __init__(self, transformer: ZImageTransformer2DModel) -> None:
        self._transformer = transformer
        self._tables: dict[tuple[int, ...], RopeTables] = {}

    def __call__(self, captions: Captions, latents: Tensor) -> RopeTables:
        key = (captions.states.shape[1], *latents.shape[-2:])
        if key not in self._tables:
            blank = torch.zeros(key[0], WIDTH, device=latents.device)
            with torch.no_grad():
                shared = condition(self._transformer, blank, *key[1:])
            self._tables[key] = shared.image_rope, shared.rope
        return self._tables[key]


def batch_conditioning(
    transformer: ZImageTransformer2DModel, captions: Captions, image_rope: Tensor, rope: Tensor
) -> Conditioning:
    """The conditioning of `models.inference.denoise.transformer`, for prompts that pad to the same length."""
    tokens = transformer.cap_embedder(captions.states.float())
    place = torch.arange(tokens.shape[1], device=tokens.device)
    padding = place[None] >= captions.lengths[:, None]
    tokens = torch.where(padding[..., None], transformer.cap_pad_token.to(tokens.dtype), tokens)
    caption_rope = rope[:, image_rope.shape[1] :]
    for layer in transformer.context_refiner:
        tokens = layer(tokens, caption_rope)
    return Conditioning(tokens, image_rope, rope)


def velocity(
    transformer: ZImageTransformer2DModel,
    latents: Tensor,
    sigmas: Tensor,
    captions: Captions,
    ropes: RopeTables,
    controlnet: ZImageControlNetModel | None = None,
    control_latents: Tensor | None = None,
    control_scale: float = 1.0,
) -> Tensor:
    """The transformer's answer for latents (B, 16, h, w) at sigmas (B,), each with its caption and control
    picture.
    """
    shared = batch_conditioning(transformer, captions, *ropes)
    control = None
    if controlnet is not None and control_latents is not None:
        control = Control(controlnet, control_tokens(transformer, controlnet, control_latents), control_scale)
    return predict(transformer, shared, latents, 1 - sigmas, control)


def draw_sigmas(count: int, device: str) -> Tensor:
    """Noise levels for training, even under the shift as the eight steps are, with some at pure noise."""
    even = torch.rand(count, device=device)
    shifted = SHIFT * even / (1 + (SHIFT - 1) * even)
    return torch.where(
        torch.rand(count, device=device) < _PURE_NOISE_SHARE, torch.ones_like(shifted), shifted
    )


def step_sigmas(steps: int) -> Tensor:
    """The sampler's noise levels with the closing 0: linspace(1, 1/steps) under the shift, (steps + 1,)."""
    even = torch.linspace(1, 1 / steps, steps)
    return torch.cat([SHIFT * even / (1 + (SHIFT - 1) * even), torch.zeros(1)])


@torch.no_grad()
def sample(
    transformer: ZImageTransformer2DModel,
    noise: Tensor,
    captions: Captions,
    ropes: RopeTables,
    steps: int = 8,
    controlnet: ZImageControlNetModel | None = None,
    control_latents: Tensor | None = None,
    control_scale: float = 1.0,
    done: int = 0,
) -> Tensor:
    """Euler steps from noise (B, 16, h, w) to latents, controlled throughout where there is a control
    branch. With steps `done`, `noise` is latents with what noise is left after them.
    """
    latents = noise
    sigmas = step_sigmas(steps).to(noise.device)[done:]
    for now, then in pairwise(sigmas):
        answer = velocity(
            transformer,
            latents,
            now.expand(len(noise)),
            captions,
            ropes,
            controlnet,
            control_latents,
            control_scale,
        )
        latents = latents - (then - now) * answer
    return latents
