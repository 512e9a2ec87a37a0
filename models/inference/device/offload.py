"""Weights that stay in host memory and visit the device only while they are used.

The host's tensors are kept and put back, never copied back: what changes them in between (a LoRA) must do so
while they are at home.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.inference.device.quantization import tensors_of


@contextmanager
def visiting(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a module's weights on `device` within the block."""
    home = _bring(module, device)
    try:
        yield
    finally:
        _send_home(home)


def stream(blocks: Iterable[nn.Module], device: torch.device) -> None:
    """From now on each block's weights visit `device` for the length of its forward."""
    for block in blocks:
        if device.type == "cuda":
            _pin(block)
        homes: list[list[tuple[Tensor, Tensor]]] = []
        block.register_forward_pre_hook(lambda module, _, homes=homes: homes.append(_bring(module, device)))
        block.register_forward_hook(
            # Called also when the block could not be brought.
            lambda *_, homes=homes: _send_home(homes.pop() if homes else []),
            always_call=True,
        )


def move_all_but(module: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Put what is in none of `blocks` on `device` for good."""
    streamed = {id(tensor) for block in blocks for tensor in _tensors(block)}
    for tensor in _tensors(module):
        if id(tensor) not in streamed:
            tensor.data = tensor.data.to(device)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for parameter in module.parameters():
        yield from tensors_of(parameter)
    yield from module.buffers()


def _bring(module: nn.Module, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    home = [(tensor, tensor.data) for tensor in _tensors(module)]
    try:
        for tensor, data in home:
            tensor.data = data.to(device, non_blocking=True, copy=True)
    except BaseException:
        # No room for all of them, and nobody would send home those that went.
        _send_home(home)
        raise
    return home


def _send_home(home: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, data in home:
        tensor.data = data


def _pin(module: nn.Module) -> None:
    """Page-locked host memory is copied to a GPU about twice as fast, and beside the computation."""
    for tensor in _tensors(module):
        tensor.data = tensor.data.pin_memory()
