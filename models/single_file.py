"""Checkpoints as other front ends keep them, seen with diffusers' names.

Differences (ComfyUI's files and the authors' own): a prefix, query, key and value fused to `qkv`, a few other
names, and fp8 weights with a scale beside them. Nothing is read until a tensor is asked for.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from models.loading import Shapes, Weights

TRANSFORMER_PREFIXES = ("model.diffusion_model.", "diffusion_model.")

RENAMED = (
    (re.compile(r"^x_embedder\."), "all_x_embedder.2-1."),
    (re.compile(r"^final_layer\."), "all_final_layer.2-1."),
    (re.compile(r"\.attention\.out\."), ".attention.to_out.0."),
    (re.compile(r"\.attention\.q_norm\."), ".attention.norm_q."),
    (re.compile(r"\.attention\.k_norm\."), ".attention.norm_k."),
)

NO_WEIGHT = re.compile(
    r"(^|\.)(scaled_fp8|comfy_quant|scale_input|input_scale|scale_weight|weight_scale)$|^norm_final\."
)
"""What lies beside the weights: scales, markers of how they were quantized, and a norm that is never run."""

FUSED = "attention.qkv.weight"
PARTS = ("to_q", "to_k", "to_v")


class Origin(NamedTuple):
    """The stored tensor that one of diffusers' is made from; `part` is its third, if it is fused."""

    stored: str
    part: int | None = None


class SingleFile:
    """The weights of a file by diffusers' names, with fp8 scales worked in.

    `prefixes` are cut off. A file that has diffusers' names already is seen as it is.
    """

    def __init__(self, weights: Weights, prefixes: Iterable[str] = TRANSFORMER_PREFIXES) -> None:
        self._weights = weights
        self._origins: dict[str, Origin] = {}
        for stored in weights.places:
            name = _renamed(stored, prefixes)
            if NO_WEIGHT.search(name):
                continue
            if name.endswith(FUSED):
                stem = name.removesuffix("qkv.weight")
                for part, projection in enumerate(PARTS):
                    self._origins[f"{stem}{projection}.weight"] = Origin(stored, part)
            else:
                self._origins[name] = Origin(stored)

    def shapes(self) -> Shapes:
        return {name: self._shape(origin) for name, origin in self._origins.items()}

    def read(self, name: str) -> Tensor:
        stored, part = self._origins[name]
        tensor = self._weights.read(stored)
        scale = self._scale(stored)
        if scale is not None:
            # One scale for all, or one for each row.
            scale = scale.to(torch.float32)
            tensor = tensor.to(torch.float32) * scale.reshape(-1, *[1] * (tensor.ndim - 1))
        return tensor if part is None else tensor.chunk(len(PARTS))[part]

    def _shape(self, origin: Origin) -> tuple[int, ...]:
        shape = self._weights.places[origin.stored].shape
        return shape if origin.part is None else (shape[0] // len(PARTS), *shape[1:])

    def _scale(self, stored: str) -> Tensor | None:
        stem = stored.removesuffix("weight")
        for name in (f"{stem}weight_scale", f"{stem}scale_weight"):
            if name in self._weights.places:
                return self._weights.read(name)
        return None


def _renamed(stored: str, prefixes: Iterable[str]) -> str:
    name = stored
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name
