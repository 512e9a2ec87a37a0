"""The blocks, and on a GPU the decoder, compiled by torch.compile, between two pictures.

The number of tokens is left open, so that one code serves every size and every prompt, and each block alike.
What was not compiled in the warm-up, such as several pictures at once, runs as it is written: no request
waits for a compiler. LoRAs are merged into the same tensors and need no new code. Not yet tried on a GPU.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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


def compile_blocks(model: nn.Module, mode: str | None) -> None:
    """Have every block with a timestep compiled when it first runs, for any number of tokens.

    The caption's refiner stays as it is: it runs once a request, on a few tokens. With no mode all blocks run
    as they are written again.
    """
    for module in model.modules():
        if isinstance(module, Block | ControlBlock) and module.modulation:
            module.__dict__.pop("forward", None)
            module.hands_on = mode is not None
            if mode is not None:
                # Not the module, whose hooks bring its weights: they are no part of the code.
                compiled: Any = torch.compile(module.forward, mode=mode, fullgraph=True, dynamic=True)
                module.__dict__["forward"] = compiled


def compile_decoder(vae: Any, *, compiled: bool) -> None:
    """Have the decoder compiled when it first runs, for pictures of any size, or not; tiles are not.

    Its norms and activations are one kernel each then, and need no copies beside channels-last convolutions.
    """
    if compiled:
        vae.decoder.compile(dynamic=True)
    else:
        # As it is before any `compile`, which PyTorch has no word to take back.
        vae.decoder._compiled_call_impl = None


@torch.no_grad()
def warm_up(
    transformer: Any, controlnet: Any | None, device: torch.device, vae: Any | None = None
) -> list[Tensor]:
    """Run one step without and one with the control branch, and decode; their answers.

    Whatever is to be compiled is compiled here, and nothing else from then on. Raises what a compiler raises.
    """
    torch.compiler.set_stance("default")
    try:
        return _answers(transformer, controlnet, device, vae)
    finally:
        torch.compiler.set_stance("eager_on_recompile")


def _answers(transformer: Any, controlnet: Any | None, device: torch.device, vae: Any | None) -> list[Tensor]:
    height, width = WARM_UP
    random = torch.Generator().manual_seed(7)
    latents = torch.randn(1, transformer.in_channels, height, width, generator=random).to(device)
    embeddings = torch.randn(1, transformer.config.cap_feat_dim, generator=random).to(device)
    conditioning = condition(transformer, embeddings, height, width)
    controls: list[Control | None] = [None]
    if controlnet is not None:
        controls.append(Control(controlnet, control_tokens(transformer, controlnet, latents), 1.0))
    answers = []
    for control in controls:
        if device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        answers.append(predict(transformer, conditioning, latents, 0.5, control).clone())
    if vae is not None:
        vae.decode(latents.to(vae.dtype))
    return answers
