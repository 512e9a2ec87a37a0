"""Matrices and tokens in 8-bit floating point (e4m3), for cards that multiply it twice as fast as bfloat16.

A weight has one scale for each of its rows and a token one of its own, as in 8-bit integers. Each number has
an exponent too, so that a few huge columns leave enough of the others. A compiler fuses the rounding with
what is before it. Elsewhere, as for tests, the same is computed in float32. Not yet tried on a GPU.
"""

import torch
from torch import Tensor

from models.inference.denoise.int8 import RoundedLinear

LARGEST = torch.finfo(torch.float8_e4m3fn).max
"""The largest number of e4m3: 448."""
LEAST = 1e-12
"""A row of smaller numbers is zero: its scale would be too small for float32."""
CAPABILITY = (8, 9)
"""The first compute capability of NVIDIA's that multiplies e4m3: Ada, and Hopper after it."""


class Fp8Linear(RoundedLinear):
    """Numbers in e4m3."""

    numbers = torch.float8_e4m3fn

    @staticmethod
    def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
        scale = values.abs().amax(-1, keepdim=True).float().clamp(min=LEAST) / LARGEST
        return (values.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (…, in) to (…, out), in the type they have."""
        return self.multiply(x, *self.round_rows(x.flatten(0, -2)))

    def multiply(self, x: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        """The same, where `tokens` (tokens, in) times `scale` (tokens, 1) are what `x` is rounded to."""
        output = product(tokens, scale, self.weight, self.scale).to(x.dtype).view(*x.shape[:-1], -1)
        beside = self.beside(x)
        return output if beside is None else output + beside


def multiply_each(x: Tensor, *layers: Fp8Linear) -> list[Tensor]:
    """What several layers make of the same tokens (…, in), which are rounded once for all."""
    tokens, scale = Fp8Linear.round_rows(x.flatten(0, -2))
    # A view of what is in memory: a compiler would write the same numbers for each product by itself.
    tokens = tokens.as_strided(tokens.shape, (x.shape[-1], 1))
    return [layer.multiply(x, tokens, scale) for layer in layers]


def product(tokens: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """The product (tokens, out) of `tokens` (tokens, in) and `weight` (out, in), times their scales (…, 1).

    On a GPU in bfloat16, elsewhere in float32.
    """
    if tokens.is_cuda:
        return torch._scaled_mm(
            tokens,
            weight.t(),
            scale_a=scale,
            scale_b=weight_scale.t(),
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
    return (tokens.float() @ weight.float().t()) * scale * weight_scale.t()
