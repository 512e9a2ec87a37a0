"""How much memory a model will take, told from its files' headers before any weight is read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from models.inference.loading.components import NO_FILES, Files
from models.inference.loading.single_file import stored_in
from models.inference.loading.tensors import folder_files


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
    )


def _weight(folder: Path, file: Path | None) -> int:
    return sum(_parameters(path) for path in ([file] if file else folder_files(folder)))


def _parameters(path: Path) -> int:
    return sum(math.prod(shape) for shape in stored_in([path]).shapes().values())
