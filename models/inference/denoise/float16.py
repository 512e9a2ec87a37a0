"""float16 without overflow, for cards that have no bfloat16.

The feed-forward's products and the attention's output pass 65,504, the largest number of float16. Behind
each stands an RMSNorm, which takes a constant factor of its input out again: with smaller weights before it,
and its eps smaller by the square, the function is the same.
"""

from typing import TypeVar

import torch
from torch import nn

from models.inference.denoise.blocks import Block, ControlBlock

Model = TypeVar("Model", bound=nn.Module)

FACTOR = 2.0**-6
"""The factor by which the weights of `w3`, `w2` and `to_out` are made smaller, each.

What `w2` gives becomes smaller by 2**-12: values up to 1.6e7 were seen there, and up to 6.6e5 behind `w3`.
The whole factor in one place would make weights too small for float16."""


@torch.no_grad()
def shrink(model: Model) -> Model:
    """Make the products of every block smaller; `factor_of` a layer is that of what is added to it."""
    for block in model.modules():
        if not isinstance(block, Block | ControlBlock):
            continue
        for layer in (block.feed_forward.w3, block.feed_forward.w2, block.attention.to_out[0]):
            numbers = layer.scale if hasattr(layer, "scale") else layer.weight
            numbers.mul_(FACTOR)
            layer.factor = FACTOR
        block.ffn_norm2.eps *= FACTOR**4
        block.attention_norm2.eps *= FACTOR**2
    return model


def factor_of(layer: nn.Module) -> float:
    """What the weights of a layer are multiplied by."""
    return getattr(layer, "factor", 1.0)
