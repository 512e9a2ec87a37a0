"""How much memory a model will take, told from its files' headers before any weight is read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from models.inference.loading.components import NO_FILES, Files
from models.inference.loading.single_file import stored_in
from models.inference.loading.tensors import folder_files

NARROW_BYTES, WIDE_BYTES = 1.8, 2.2
"""Bytes a weight below which files have less than 16 bits, and above which they have more."""


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
    is_wide: bool = False
    """True where the transformer is stored in more, so that it is mapped from a copy."""
    checkpoints: tuple[tuple[Path, ...], ...] = ()
    """The files of each component of which there may be a copy."""


def footprint(folder: Path, controlnet: Path | None, files: Files = NO_FILES) -> Footprint:
    """What the model in `folder` will weigh, from its files' headers and configurations alone."""
    config = json.loads((folder / "transformer" / "config.json").read_bytes())
    vae_config = json.loads((folder / "vae" / "config.json").read_bytes())
    transformer = _weight(folder / "transformer", files.transformer)
    return Footprint(
        transformer=transformer,
        controlnet=_parameters(controlnet) if controlnet else 0,
        text_encoder=_weight(folder / "text_encoder", files.text_encoder),
        vae=_weight(folder / "vae", files.vae),
        largest_block=transformer // config["n_layers"],
        width=config["dim"],
        vae_width=vae_config["block_out_channels"][0],
        is_narrow=min(
            _bytes_each(folder / "transformer", files.transformer),
            _bytes_each(folder / "text_encoder", files.text_encoder),
        )
        < NARROW_BYTES,
        is_wide=_bytes_each(folder / "transformer", files.transformer) > WIDE_BYTES,
        checkpoints=(
            tuple(_files(folder / "transformer", files.transformer)),
            tuple(_files(folder / "text_encoder", files.text_encoder)),
            *([(controlnet,)] if controlnet else []),
        ),
    )


def _bytes_each(folder: Path, file: Path | None) -> float:
    return sum(path.stat().st_size for path in _files(folder, file)) / _weight(folder, file)


def _files(folder: Path, file: Path | None) -> list[Path]:
    return [file] if file else folder_files(folder)


def _weight(folder: Path, file: Path | None) -> int:
    return sum(map(_parameters, _files(folder, file)))


def _parameters(path: Path) -> int:
    return sum(math.prod(shape) for shape in stored_in([path]).shapes().values())
