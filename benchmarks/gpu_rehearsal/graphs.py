"""How many graphs the blocks are compiled to for sizes, captions and control branches, on a CPU."""

import tempfile
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from torch._dynamo.utils import counters

from benchmarks.gpu.models import TINY, build_components, write_controlnets
from models.inference.denoise.blocks import round_blocks
from models.inference.denoise.paths import COMPILED
from models.inference.denoise.rounding import EightBits
from models.inference.denoise.transformer import Control, condition, control_tokens, predict
from models.inference.device.loaded_model import LoadedModel
from models.inference.device.placement import Placement

SIZES = ((48, 64), (32, 96), (64, 64))
"""Heights and widths of latents."""
CAPTIONS = (20, 60, 200, 500)
"""Tokens."""
HELD_BYTES = 200_000
"""The weights that a model that streams keeps on the device, in bytes: enough for some of its blocks."""


@torch.no_grad()
def count_graphs(mode: Literal["resident", "streamed"], eight_bits: EightBits | None = None) -> int:
    """For a model as the server loads it; where weights stream or are in 8 bits, with LoRAs beside them too.

    Code is traced and not generated: how often is what counts.
    """
    torch.compiler.set_default_backend("eager")
    counters.clear()
    try:
        with tempfile.TemporaryDirectory() as folder:
            components = build_components(TINY, torch.float32, "cpu")
            unions = write_controlnets(TINY, components, Path(folder))
            if eight_bits:
                round_blocks(components.transformer, eight_bits)
            held_bytes = HELD_BYTES if mode == "streamed" else None
            placement = Placement("cpu", "float32", mode, eight_bits=eight_bits, held_bytes=held_bytes)
            model = LoadedModel(components, placement, unions["1.0"])
            model.use(COMPILED)
            torch.compiler.set_stance("default")
            for size, caption, union in product(SIZES, CAPTIONS, (None, *unions.values())):
                _step(model, size, caption, union)
        return int(counters["stats"]["unique_graphs"])
    finally:
        torch.compiler.set_default_backend("inductor")
        torch.compiler.set_stance("default")
        torch._dynamo.reset()


def _step(model: LoadedModel, size: tuple[int, int], caption: int, union: Path | None) -> None:
    with model.denoiser(union) as (transformer, branch):
        latents = torch.zeros(1, transformer.in_channels, *size)
        conditioning = condition(transformer, torch.zeros(caption, transformer.config.cap_feat_dim), *size)
        control = None
        if branch is not None:
            control = Control(branch, control_tokens(transformer, branch, latents), 1.0)
        predict(transformer, conditioning, latents, 0.0, control)
