"""Weights that stay in host memory and are copied to the device only while they are used.

The host's tensors are kept and put back, never copied back. Whatever changes a weight for good (a LoRA) must
do so while the weight is on the host.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

HostTensors = list[tuple[Tensor, Tensor]]
"""Each tensor of a module, and the data in host memory that it had before it was copied to a device."""


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a module's weights on `device` within the block."""
    on_host = _copy_to(device, module)
    try:
        yield
    finally:
        _put_back(on_host)


def stream(blocks: Iterable[nn.Module], device: torch.device) -> None:
    """From now on each block's weights are on `device` for the length of its forward only."""
    for block in blocks:
        if device.type == "cuda":
            _pin(block)
        running: list[HostTensors] = []
        block.register_forward_pre_hook(
            lambda module, _, running=running: running.append(_copy_to(device, module))
        )
        block.register_forward_hook(
            # Called also when the block could not be copied.
            lambda *_, running=running: _put_back(running.pop() if running else []),
            always_call=True,
        )


def move_all_but(module: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Put what is in none of `blocks` on `device` for good."""
    streamed = {id(tensor) for block in blocks for tensor in _tensors(block)}
    for tensor in _tensors(module):
        if id(tensor) not in streamed:
            tensor.data = tensor.data.to(device)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _copy_to(device: torch.device, module: nn.Module) -> HostTensors:
    on_host = [(tensor, tensor.data) for tensor in _tensors(module)]
    try:
        for tensor, data in on_host:
            tensor.data = data.to(device, non_blocking=True, copy=True)
    except BaseException:
        # There is no room for all of them, and nobody would put back those that were copied.
        _put_back(on_host)
        raise
    return on_host


def _put_back(on_host: HostTensors) -> None:
    for tensor, data in on_host:
        tensor.data = data


def _pin(module: nn.Module) -> None:
    """Page-locked host memory is copied to a GPU about twice as fast, and beside the computation."""
    for tensor in _tensors(module):
        tensor.data = tensor.data.pin_memory()
