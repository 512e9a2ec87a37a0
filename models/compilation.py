"""Blocks compiled by torch.compile, each shape by itself, once for all alike. Not yet tried on a GPU."""

import torch
from torch import nn

from models.block import Block, ControlBlock

MOST_SHAPES = 256
"""Of one block that are kept; PyTorch's own bound, 8, is for shapes that nobody chose."""


def compile_blocks(model: nn.Module, mode: str) -> None:
    """Have every block with a timestep compiled when it first runs with a new shape.

    The caption's refiner stays as it is: it runs once a request, on a few tokens.
    """
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    for module in model.modules():
        if isinstance(module, Block | ControlBlock) and module.modulation:
            module.compile(mode=mode, fullgraph=True, dynamic=False)
