"""Softmax attention on a processor, head by head: there PyTorch's own is slow for many tokens.

Each head goes through in chunks of its queries, with all keys at once, so that the scores of a chunk stay in
the processor's cache. They are float32, as PyTorch's own are.
"""

from itertools import product

import torch
from torch import Tensor

from models.inference.denoise.int8 import chunks, integer_product, round_rows

LONG = 512
"""Tokens from which it is faster than PyTorch's, its products being exact."""
LONG_IN_INTEGERS = 256
"""The same with scores from products of 8-bit numbers."""


def attends_by_heads(x: Tensor, *, in_integers: bool) -> bool:
    """True where `attend` is faster than PyTorch's attention for tokens (batch, tokens, width)."""
    # Not asked for its length when compiled: the code would then be good for one side of it alone.
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return x.shape[1] >= (LONG_IN_INTEGERS if in_integers else LONG)


def attend(query: Tensor, key: Tensor, value: Tensor, *, in_integers: bool) -> Tensor:
    """Attention of (batch, heads, tokens, width), as (batch, tokens, heads * width), in their type.

    With `in_integers` the scores are products of 8-bit numbers. The mean of the keys, which adds the same to
    all scores of a query, is taken off before rounding (SageAttention, 2410.02367).
    """
    pictures, heads, tokens, width = query.shape
    output = value.new_empty(pictures, tokens, heads, width)
    values = value.contiguous()
    query_scale = key_scale = None
    if in_integers:
        queries, query_scale = round_rows(query.contiguous())
        keys, key_scale = round_rows(key - key.mean(2, keepdim=True))
        key_scale = key_scale.mul_(width**-0.5).transpose(2, 3).contiguous()
    else:
        queries, keys = query.float() * width**-0.5, key.float()
    for place in product(range(pictures), range(heads)):
        for rows in chunks(queries[place]):
            part = queries[place][rows]
            if query_scale is None or key_scale is None:
                scores = part @ keys[place].t()
            else:
                scores = integer_product(part, keys[place]).float()
                scores.mul_(key_scale[place]).mul_(query_scale[place][rows])
            picture, head = place
            output[picture, rows, head] = scores.softmax(-1).to(values.dtype) @ values[place]
    return output.flatten(2)
