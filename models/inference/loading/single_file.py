"""Checkpoints as ComfyUI and the authors store them, read under diffusers' names.

They differ in a prefix, in some names, in query, key and value fused to `qkv`, in fp8 weights with a scale
beside them, or are GGUF files. Nothing is read until a tensor is asked for.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.inference.loading.gguf import SUFFIX as GGUF
from models.inference.loading.gguf import GgufFile
from models.inference.loading.original_names import COMFYUI_PREFIXES, PROJECTIONS, diffusers_names
from models.inference.loading.tensors import DTYPES, Shapes, Source, Weights

NO_WEIGHT = re.compile(
    r"(^|\.)(scaled_fp8|comfy_quant|scale_input|input_scale|scale_weight|weight_scale)$|^norm_final\."
)
"""What a file has beside weights: scales, markers of how they were quantized, a norm that is never run."""


MAPPED_SHARE = 0.98
"""A few norms and scales of another type are copied, and take next to nothing."""


class Origin(NamedTuple):
    """The stored tensor that one of diffusers' is made from; `part` is its third, if it is fused."""

    stored: str
    part: int | None = None


class SingleFile:
    """The weights of a file by diffusers' names, with fp8 scales worked in.

    `names` says what some are called, `prefixes` are cut off the others. A file that has diffusers' names
    already is seen as it is.
    """

    def __init__(
        self,
        weights: Source,
        prefixes: Iterable[str] = COMFYUI_PREFIXES,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.mapped = weights.mapped
        self._weights = weights
        self._stored = weights.shapes()
        self._fused: tuple[str, Tensor] | None = None
        self._origins: dict[str, Origin] = {}
        for stored in self._stored:
            known = (names or {}).get(stored)
            found = (known,) if known else diffusers_names(_without(prefixes, stored))
            if not NO_WEIGHT.search(found[0]):
                for part, name in enumerate(found):
                    self._origins[name] = Origin(stored, part if len(found) > 1 else None)

    def shapes(self) -> Shapes:
        return {name: self._shape(origin) for name, origin in self._origins.items()}

    def read(self, name: str) -> Tensor:
        stored, part = self._origins[name]
        if part is None:
            return self._read(stored)
        # Read once for its three parts, which are asked for one after the other.
        if self._fused is None or self._fused[0] != stored:
            self._fused = stored, self._read(stored)
        third = self._fused[1].chunk(len(PROJECTIONS))[part]
        # Copied: a view would keep all three parts in memory for each of them.
        return third if self.mapped else third.clone()

    def _read(self, stored: str) -> Tensor:
        tensor = self._weights.read(stored)
        scale = self._scale(stored)
        if scale is None:
            return tensor
        # One scale for all, or one for each row.
        scale = scale.to(torch.float32)
        return tensor.to(torch.float32) * scale.reshape(-1, *[1] * (tensor.ndim - 1))

    def _shape(self, origin: Origin) -> tuple[int, ...]:
        shape = self._stored[origin.stored]
        return shape if origin.part is None else (shape[0] // len(PROJECTIONS), *shape[1:])

    def _scale(self, stored: str) -> Tensor | None:
        stem = stored.removesuffix("weight")
        for name in (f"{stem}weight_scale", f"{stem}scale_weight"):
            if name in self._stored:
                return self._weights.read(name)
        return None


def stored_in(files: list[Path], *, mapped: bool = False) -> Source:
    """The tensors of safetensors files, or of one GGUF file, by the names they are stored under."""
    return GgufFile(files[0]) if files[0].suffix == GGUF else Weights(files, mapped=mapped)


def are_stored_in(files: Sequence[Path], dtype: torch.dtype) -> bool:
    """Whether mapped weights of these files are used where they lie, in this type: next to all of them."""
    if files[0].suffix == GGUF:
        return False
    fit = total = 0
    for place in Weights(files).places.values():
        info, count = place.info, math.prod(place.info.shape)
        total += count
        if DTYPES.get(info.dtype) == dtype and not info.offset % dtype.itemsize:
            fit += count
    return fit >= MAPPED_SHARE * total


def _without(prefixes: Iterable[str], stored: str) -> str:
    for prefix in prefixes:
        stored = stored.removeprefix(prefix)
    return stored
