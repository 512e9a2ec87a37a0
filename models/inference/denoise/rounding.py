"""The choice of the layers whose matrices are kept in 8 bits, and of the numbers that they are kept in."""

from typing import Literal

from torch import nn

from models.inference.denoise.fp8 import Fp8Linear
from models.inference.denoise.int8 import Int8Linear, RoundedLinear

EightBits = Literal["int8", "fp8"]
LINEAR: dict[EightBits, type[RoundedLinear]] = {"int8": Int8Linear, "fp8": Fp8Linear}
WIDE_LAYERS = ("w2", "down_proj")
"""The layers, of transformer and text encoder, whose input has columns a thousand times the others."""


def round_matrices(module: nn.Module, eight_bits: EightBits) -> None:
    """Put every linear layer without bias in 8 bits."""
    for name, layer in list(module.named_children()):
        if isinstance(layer, nn.Linear) and len([*layer.parameters()]) == 1:
            setattr(module, name, LINEAR[eight_bits].of(layer, wide=name in WIDE_LAYERS))
        else:
            round_matrices(layer, eight_bits)
