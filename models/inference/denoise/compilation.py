"""The blocks, and on a GPU the decoder, compiled by torch.compile, before the first picture.

The number of tokens is left open, so that one code serves every size and every prompt, and each block alike.
What was not compiled in the warm-up, such as several pictures at once, runs as it is written: no request
waits for a compiler. LoRAs are merged into the same tensors and need no new code. Not yet tried on a GPU.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import ModelError
from models.inference.denoise.blocks import Block, ControlBlock
from models.inference.denoise.transformer import Control, condition, control_tokens, predict

WARM_UP = (48, 80)
"""Height and width of the latents that are compiled with: 960 tokens, which no width of a model is. Where a
number of tokens equals one, the code would be good for that number alone."""


def keep_code_in(folder: Path) -> None:
    """Have compiled code kept in `folder`, where the next process finds it, and the same in every process.

    By itself inductor chooses kernels by timing them, and two workers could differ in a picture's last bits.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")


def compile_blocks(model: nn.Module, mode: str) -> None:
    """Have every block with a timestep compiled when it first runs, for any number of tokens.

    The caption's refiner stays as it is: it runs once a request, on a few tokens.
    """
    for module in model.modules():
        if isinstance(module, Block | ControlBlock) and module.modulation:
            # Not the module, whose hooks bring its weights: they are no part of the code.
            compiled: Any = torch.compile(module.forward, mode=mode, fullgraph=True, dynamic=True)
            module.__dict__["forward"] = compiled


def compile_decoder(vae: Any) -> None:
    """Have the decoder compiled when it first runs, for pictures of any size; tiles are not.

    Its norms and activations are one kernel each then, and need no copies beside channels-last convolutions.
    """
    vae.decoder.compile(dynamic=True)


@torch.no_grad()
def warm_up(transformer: Any, controlnet: Any | None, device: torch.device, vae: Any | None = None) -> None:
    """Run one step with and without the control branch, and decode; from then on nothing else is compiled.

    Raises `ModelError` where there is no compiler.
    """
    torch.compiler.set_stance("default")
    height, width = WARM_UP
    latents = torch.zeros(1, transformer.in_channels, height, width, device=device)
    embeddings = torch.zeros(1, transformer.config.cap_feat_dim, device=device)
    conditioning = condition(transformer, embeddings, height, width)
    controls: list[Control | None] = [None]
    if controlnet is not None:
        controls.append(Control(controlnet, control_tokens(transformer, controlnet, latents), 1.0))
    try:
        for control in controls:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            predict(transformer, conditioning, latents, 0.0, control)
        if vae is not None:
            vae.decode(latents.to(vae.dtype))
    except torch._dynamo.exc.BackendCompilerFailed as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"The blocks cannot be compiled here ({reason}): install a C++ compiler, or set "
            "ZTURBO_COMPILE=off."
        ) from error
    torch.compiler.set_stance("eager_on_recompile")
