"""The blocks compiled by torch.compile, before the first picture, for the shapes that pictures will have.

A shape is a picture's size and a caption's tokens in steps of 32. Each is compiled by itself, so that sizes
are constants in its code, and once for all blocks alike. What was not compiled in the warm-up runs as it is
written: no request waits for a compiler. LoRAs are merged into the same tensors and need no new code. Not yet
tried on a GPU.
"""

import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import ModelError
from models.inference.denoise.blocks import Block, ControlBlock
from models.inference.denoise.pipeline import denoise
from models.inference.denoise.transformer import Control, condition, control_tokens

CAPTION_TOKENS = (32, 64, 96, 128)
"""The lengths of captions that are compiled for: those of prompts of up to about a hundred words."""
MOST_SHAPES = 256
"""The most shapes of one block that are kept; PyTorch's own bound, 8, is for shapes that nobody chose."""


def keep_code_in(folder: Path) -> None:
    """Have compiled code kept in `folder`, where the next process finds it, and the same in every process.

    By itself inductor chooses kernels by timing them, and two workers could differ in a picture's last bits.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")


def compile_blocks(model: nn.Module, mode: str) -> None:
    """Have every block with a timestep compiled when it first runs with a new shape.

    The caption's refiner stays as it is: it runs once a request, on a few tokens.
    """
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    for module in model.modules():
        if isinstance(module, Block | ControlBlock) and module.modulation:
            module.compile(mode=mode, fullgraph=True, dynamic=False)


@torch.no_grad()
def warm_up(
    transformer: Any, controlnet: Any | None, sizes: Iterable[tuple[int, int]], device: torch.device
) -> None:
    """Run one step for each (height, width) in latents and each caption, with and without the control branch.

    From then on nothing else is compiled. Raises `ModelError` where there is no compiler.
    """
    torch.compiler.set_stance("default")
    embeddings = torch.zeros(max(CAPTION_TOKENS), transformer.config.cap_feat_dim, device=device)
    sigmas = torch.tensor([1.0, 0.0])
    for (height, width), tokens in product(sizes, CAPTION_TOKENS):
        latents = torch.zeros(1, transformer.in_channels, height, width, device=device)
        conditioning = condition(transformer, embeddings[:tokens], height, width)
        controls: list[Control | None] = [None]
        if controlnet is not None:
            embedded = control_tokens(transformer, controlnet, latents)
            controls.append(Control(controlnet, embedded, 1.0))
        try:
            for control in controls:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                denoise(transformer, conditioning, latents, sigmas, lambda *_: None, control)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"The blocks cannot be compiled here ({reason}): install a C++ compiler, or set "
                "ZTURBO_COMPILE=off."
            ) from error
    torch.compiler.set_stance("eager_on_recompile")
