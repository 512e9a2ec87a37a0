"""The blocks, and on a GPU the decoder, compiled by torch.compile, between two pictures.

The number of tokens is left open, so that one code serves every size and every prompt, and each block alike.
What was not compiled in the warm-up, such as several pictures at once, runs as it is written: no request
waits for a compiler. LoRAs that are merged into the weights need no new code; for those beside them there is
one more, good for any rank. Not yet tried on a GPU.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.inference.denoise.beside import LoraLayer, none_beside
from models.inference.denoise.blocks import Block, ControlBlock, Swiglu
from models.inference.denoise.modulation import modulate_each
from models.inference.denoise.transformer import Control, Predict, condition, control_tokens, predict

WARM_UP = (48, 80)
"""Height and width of the latents that are compiled with: 960 tokens, which no width of a model is. Where a
number of tokens equals one, the code would be good for that number alone."""
RANKS = range(19, 256, 4)
"""The ranks of the LoRAs that are compiled with, one for each layer of a block. For the same reason each is
another, and one that nothing else in a model is as long as."""

OPTIONS: dict[str, bool | str | int | Callable[..., Any]] = {"deterministic": True}
"""Options for inductor, which by itself chooses kernels by timing them: two workers could differ in a
picture's last bits. Each compilation is told so: what is set for the process PyTorch takes back after one."""


def keep_code_in(folder: Path) -> None:
    """Have compiled code kept in `folder`, where the next process finds it."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def compile_blocks(model: nn.Module, *, compiled: bool, swiglu: bool = False) -> None:
    """Have every block with a timestep compiled when it first runs, for any number of tokens, or never more.

    The caption's refiner stays as it is: it runs once a request, on a few tokens. `swiglu`: with the kernel
    of our own, where the weights are as it takes them.
    """
    kernel: Swiglu | None = None
    if swiglu:
        # Triton is there with PyTorch for CUDA alone.
        from models.inference.denoise.swiglu import swiglu as kernel
    for block in _compiled_blocks(model):
        block.swiglu = kernel
        block.__dict__.pop("forward", None)
        block.hands_on = compiled
        if compiled:
            # Not the module, whose hooks bring its weights: they are no part of the code.
            code: Any = torch.compile(block.forward, fullgraph=True, dynamic=True, options=OPTIONS)
            block.__dict__["forward"] = code


def lora_layers(model: nn.Module) -> Iterator[list[LoraLayer]]:
    """The layers of each compiled block that have LoRAs beside them: its code is for all of them, or none."""
    for block in _compiled_blocks(model):
        parts = block.attention, block.feed_forward
        yield [layer for part in parts for layer in part.modules() if isinstance(layer, LoraLayer)]


def _compiled_blocks(model: nn.Module) -> Iterator[Block | ControlBlock]:
    for module in model.modules():
        if isinstance(module, Block | ControlBlock) and module.modulation:
            yield module


def compile_decoder(vae: Any, *, compiled: bool) -> None:
    """Have the decoder compiled when it first runs, for pictures of any size, or not; tiles are not.

    Its norms and activations are one kernel each then, and need no copies beside channels-last convolutions.
    """
    if compiled:
        vae.decoder.compile(dynamic=True, options=OPTIONS)
    else:
        # As it is before any `compile`, which PyTorch has no word to take back.
        vae.decoder._compiled_call_impl = None


@torch.no_grad()
def warm_up(
    transformer: Any,
    controlnet: Any | None,
    device: torch.device,
    vae: Any | None = None,
    predict: Predict = predict,
    seed: int = 7,
) -> list[Tensor]:
    """Run a step, one with the control branch and one with LoRAs beside the weights, and decode; the answers.

    Whatever is to be compiled is compiled here, and nothing else from then on. Raises what a compiler raises.
    """
    torch.compiler.set_stance("default")
    try:
        # Those of the last request may still be there.
        with none_beside(layer for layers in lora_layers(transformer) for layer in layers):
            return _answers(transformer, controlnet, device, vae, predict, seed)
    finally:
        torch.compiler.set_stance("eager_on_recompile")


def _answers(
    transformer: Any,
    controlnet: Any | None,
    device: torch.device,
    vae: Any | None,
    predict: Predict,
    seed: int,
) -> list[Tensor]:
    height, width = WARM_UP
    random = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, transformer.in_channels, height, width, generator=random).to(device)
    embeddings = torch.randn(1, transformer.config.cap_feat_dim, generator=random).to(device)
    conditioning = condition(transformer, embeddings, height, width)
    controls: list[Control | None] = [None]
    if controlnet is not None:
        controls.append(Control(controlnet, control_tokens(transformer, controlnet, latents), 1.0))
    timesteps = torch.full((1,), 0.5, device=device)
    answers = []

    def run(control: Control | None) -> None:
        # Code for factors that lie as these do is good for those of `modulate` too, and not the reverse.
        modulation = modulate_each(transformer, control and control.controlnet, timesteps)
        answers.append(predict(transformer, conditioning, latents, modulation, control))

    for control in controls:
        run(control)
    by_block = list(lora_layers(transformer))
    factors = [
        tuple(factor.to(conditioning.caption) for factor in _factors(layer, rank, random))
        for layer, rank in zip(by_block[0], RANKS, strict=False)
    ]
    if factors:
        for layers in by_block:
            for layer, (down, up) in zip(layers, factors, strict=True):
                layer.put_beside(down, up)
        run(None)
    if vae is not None:
        vae.decode(latents.to(vae.dtype))
    return answers


def _factors(layer: LoraLayer, rank: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A LoRA, `down` and `up`, that makes of tokens numbers a tenth as large."""
    width, wide = layer.weight.shape
    down = torch.randn(rank, wide, generator=random) / wide**0.5
    return down, 0.1 * torch.randn(width, rank, generator=random) / rank**0.5
