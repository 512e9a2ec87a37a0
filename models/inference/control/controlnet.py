"""A ControlNet-Union checkpoint of any published variant, loaded as diffusers' `ZImageControlNetModel`.

A variant is told by the checkpoint's keys and shapes, never by its name. The configurations are the authors'
(VideoX-Fun, config/z_image/z_image_control*.yaml): diffusers' `from_single_file` asks the hub for them, which
fails offline, and does not know 2.1-lite.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import ZImageControlNetModel

from models.errors import CheckpointError, ControlNetError
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.float16 import shrink
from models.inference.denoise.rounding import EightBits
from models.inference.loading.copies import Copies, own_copy
from models.inference.loading.eight_bits import rounded
from models.inference.loading.shrunk import shrunk
from models.inference.loading.tensors import Copy, Weights, fill
from models.weights.header import INPAINT_CHANNELS

PUBLISHED_LAYERS = 30
"""Layers of the transformer that the published control checkpoints were made for."""

Refiner = Literal["control_layers", "control_noise_refiner"] | None
"""What makes hints for the noise refiner, in diffusers' words: nothing (1.0), the control layers themselves
(2.0: a slip of the authors', trained with and therefore to be kept), or control blocks of their own (2.1)."""


@dataclass(frozen=True)
class Layout:
    """The shape of one control branch."""

    variant: str
    places: tuple[int, ...]
    """Transformer layers whose output gets a hint; one control block each."""
    channels: int
    """Latent channels in."""
    refiner: Refiner


KNOWN = (
    Layout("1.0", tuple(range(0, 30, 5)), 16, None),
    Layout("2.0", tuple(range(0, 30, 2)), INPAINT_CHANNELS, "control_layers"),
    Layout("2.1", tuple(range(0, 30, 2)), INPAINT_CHANNELS, "control_noise_refiner"),
    Layout("2.1-lite", tuple(range(0, 30, 10)), INPAINT_CHANNELS, "control_noise_refiner"),
)


def load_controlnet(
    path: Path,
    transformer_config: Any,
    dtype: torch.dtype,
    device: torch.device | str,
    layout: Layout | None = None,
    *,
    copies: Copies | None = None,
    eight_bits: EightBits | None = None,
    mapped: bool = False,
) -> tuple[ZImageControlNetModel, Layout]:
    """The control branch in `path` for a transformer of this configuration; `layout` overrides the detection.

    With `mapped` its weights are views of the file. With `eight_bits` its matrices are rounded; then, and in
    float16, a copy is kept in `copies`.

    Raises `ControlNetError` when the file is of no known layout or was made for another transformer.
    """
    try:
        copy = own_copy([path], dtype, copies, eight_bits) if copies else None
        weights = Weights([path], mapped=mapped and copy is None)
        layout = layout or detect(weights, transformer_config, path.name)
        branch = fill_controlnet(
            weights, layout, transformer_config, dtype, device, path.name, eight_bits=eight_bits, copy=copy
        )
        return branch, layout
    except CheckpointError as error:
        raise ControlNetError(str(error)) from error


def fill_controlnet(
    weights: Weights,
    layout: Layout,
    transformer_config: Any,
    dtype: torch.dtype,
    device: torch.device | str,
    source: str,
    *,
    eight_bits: EightBits | None = None,
    copy: Copy | None = None,
) -> ZImageControlNetModel:
    """Build the branch and give it its weights."""
    model = use_own_blocks(empty_controlnet(layout, transformer_config))
    if eight_bits:
        round_blocks(model, eight_bits)
    if dtype == torch.float16:
        shrink(model)
    # The 2.0 file carries refiner blocks that were never trained nor run.
    unused = "control_noise_refiner." if layout.refiner == "control_layers" else ()
    stored = shrunk(rounded(weights, model), model)
    return fill(model, stored, dtype, device, source=source, unused=unused, copy=copy)


def empty_controlnet(layout: Layout, transformer_config: Any) -> ZImageControlNetModel:
    """The branch for a transformer of this configuration, on the meta device."""
    with torch.device("meta"):
        return ZImageControlNetModel(
            control_layers_places=list(layout.places),
            control_refiner_layers_places=list(range(transformer_config["n_refiner_layers"])),
            control_in_dim=layout.channels,
            add_control_noise_refiner=layout.refiner,
            **{
                name: transformer_config[name]
                for name in (
                    "all_patch_size",
                    "all_f_patch_size",
                    "dim",
                    "n_refiner_layers",
                    "n_heads",
                    "n_kv_heads",
                    "norm_eps",
                    "qk_norm",
                )
            },
        )


def detect(weights: Weights, transformer_config: Any, source: str) -> Layout:
    """The layout of a control checkpoint. Raises `ControlNetError` saying what it has and what is known."""
    shapes = weights.shapes()
    patch, frames = transformer_config["all_patch_size"][0], transformer_config["all_f_patch_size"][0]
    embedder = shapes.get(f"control_all_x_embedder.{patch}-{frames}.weight")
    blocks = _count(shapes, "control_layers")
    if embedder is None or not blocks:
        shown = ", ".join(sorted(shapes)[:3]) or "nothing"
        raise ControlNetError(
            f"{source} is no ControlNet-Union checkpoint: it has {shown} and no control_layers."
        )
    dim, channels = embedder[0], embedder[1] // (patch * patch * frames)
    if dim != transformer_config["dim"]:
        raise ControlNetError(
            f"{source} was made for a transformer of width {dim}; this one has {transformer_config['dim']}."
        )
    refiner = _refiner(weights, shapes, channels)
    layers = transformer_config["n_layers"]
    for known in KNOWN:
        places = _places(known, blocks, layers)
        if places and (known.channels, known.refiner) == (channels, refiner):
            return Layout(known.variant, places, channels, refiner)
    variants = ", ".join(f"{k.variant} ({_describe(len(k.places), k.channels, k.refiner)})" for k in KNOWN)
    raise ControlNetError(
        f"{source} is of no known layout: it has {_describe(blocks, channels, refiner)} for {layers} layers; "
        f"known are {variants} for {PUBLISHED_LAYERS} layers."
    )


def _places(known: Layout, blocks: int, layers: int) -> tuple[int, ...] | None:
    """The layers that get the control blocks' hints, spread evenly in a transformer of another depth."""
    if layers == PUBLISHED_LAYERS:
        return known.places if blocks == len(known.places) else None
    return tuple(range(0, layers, layers // blocks)) if layers % blocks == 0 else None


def _refiner(weights: Weights, shapes: dict[str, tuple[int, ...]], channels: int) -> Refiner:
    """2.0 and 2.1 have the same keys, but 2.0's refiner was never run: its projections are still zero."""
    hint = "control_noise_refiner.0.after_proj.weight"
    if hint in shapes and weights.read(hint).float().count_nonzero():
        return "control_noise_refiner"
    return "control_layers" if hint in shapes or channels == INPAINT_CHANNELS else None


def _count(shapes: dict[str, tuple[int, ...]], stack: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(f"{stack}.")})


def _describe(blocks: int, channels: int, refiner: Refiner) -> str:
    return f"{blocks} control blocks, {channels} channels, refiner hints from {refiner or 'nothing'}"
