"""Weights of 16 bits multiplied in float32, for processors that multiply 16 bits slower.

A block's weights are widened into one buffer for the length of its forward: bit for bit what float32 weights
give, in the memory of one block.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.inference.denoise.modulation import passing_weights

Narrow = list[tuple[Tensor, Tensor]]
"""Each weight of a block, and the data that it had before it was widened."""


class Widening:
    """The buffer. One block at a time may be running."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def widen(self, module: nn.Module, blocks: Iterable[nn.Module], tables: Iterable[nn.Module] = ()) -> None:
        """From now on each block's weights are float32 while it runs, and what is in no block is so for good.

        Tables, such as of words, stay as they are; what is looked up in them is float32.
        """
        blocks, tables = list(blocks), list(tables)
        kept = {id(tensor) for part in (*blocks, *tables) for tensor in passing_weights(part)}
        for tensor in module.parameters():
            if id(tensor) not in kept:
                tensor.data = tensor.data.float()
        for table in tables:
            table.register_forward_hook(lambda _, __, found: found.float())
        for block in blocks:
            running: list[Narrow] = []
            block.register_forward_pre_hook(
                lambda block, _, running=running: running.append(self._fill(block))
            )
            block.register_forward_hook(
                lambda *_, running=running: _put_back(running.pop() if running else []), always_call=True
            )

    def _fill(self, block: nn.Module) -> Narrow:
        narrow: Narrow = [(tensor, tensor.data) for tensor in passing_weights(block)]
        needed = sum(data.numel() for _, data in narrow)
        if self._buffer.numel() < needed:
            self._buffer = torch.empty(needed)
        begin = 0
        for tensor, data in narrow:
            end = begin + data.numel()
            tensor.data = self._buffer[begin:end].view(data.shape).copy_(data)
            begin = end
        return narrow


def _put_back(narrow: Narrow) -> None:
    for tensor, data in narrow:
        tensor.data = data
