"""How much memory a model will take, told from its files' headers before any weight is read."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from models.inference.loading.components import NO_FILES, Files
from models.inference.loading.single_file import are_stored_in, stored_in
from models.inference.loading.tensors import folder_files

NARROW_BYTES = 1.8
"""Bytes a weight below which files have less than 16 bits."""

Part = Literal["transformer", "text_encoder", "controlnet"]
PARTS = frozenset[Part](("transformer", "text_encoder", "controlnet"))
"""The components of which there may be a copy."""


@dataclass(frozen=True)
class Footprint:
    """How much a model weighs: parameters of each component, and the widths that activations go by."""

    transformer: int
    controlnet: int
    text_encoder: int
    vae: int
    largest_block: int
    width: int
    vae_width: int
    is_narrow: bool = False
    """True where the transformer or the text encoder is stored in less than 16 bits."""
    cast: frozenset[Part] = frozenset()
    """The components that are not stored in bfloat16: in that type they are mapped from a copy."""
    checkpoints: tuple[tuple[Path, ...], ...] = ()
    """The files of each component of which there may be a copy."""


def footprint(folder: Path, controlnet: Path | None, files: Files = NO_FILES) -> Footprint:
    """What the model in `folder` will weigh, from its files' headers and configurations alone."""
    config = json.loads((folder / "transformer" / "config.json").read_bytes())
    vae_config = json.loads((folder / "vae" / "config.json").read_bytes())
    stored: dict[Part, tuple[Path, ...]] = {
        "transformer": _files(folder / "transformer", files.transformer),
        "text_encoder": _files(folder / "text_encoder", files.text_encoder),
    }
    narrowest = min(map(_bytes_each, stored.values()))
    if controlnet:
        stored["controlnet"] = (controlnet,)
    transformer = _weight(stored["transformer"])
    return Footprint(
        transformer=transformer,
        controlnet=_weight(stored.get("controlnet", ())),
        text_encoder=_weight(stored["text_encoder"]),
        vae=_weight(_files(folder / "vae", files.vae)),
        largest_block=transformer // config["n_layers"],
        width=config["dim"],
        vae_width=vae_config["block_out_channels"][0],
        is_narrow=narrowest < NARROW_BYTES,
        cast=frozenset(part for part, paths in stored.items() if not are_stored_in(paths, torch.bfloat16)),
        checkpoints=tuple(stored.values()),
    )


def _bytes_each(files: Sequence[Path]) -> float:
    return sum(path.stat().st_size for path in files) / _weight(files)


def _files(folder: Path, file: Path | None) -> tuple[Path, ...]:
    return (file,) if file else tuple(folder_files(folder))


def _weight(files: Sequence[Path]) -> int:
    return sum(math.prod(shape) for path in files for shape in stored_in([path]).shapes().values())
