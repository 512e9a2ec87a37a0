"""Attention by heads: what PyTorch's own gives, and only where it is faster."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.inference.denoise import blocks
from models.inference.denoise.attention import LONG, LONG_IN_INTEGERS, attend
from models.inference.denoise.blocks import Block, round_blocks
from models.inference.denoise.int8 import CHUNK


@pytest.mark.parametrize(
    ("dtype", "in_integers", "most"),
    [(torch.float32, False, 1e-5), (torch.bfloat16, False, 5e-3), (torch.float32, True, 3e-2)],
)
def test_is_that_of_floats_and_leaves_its_inputs(dtype: torch.dtype, in_integers: bool, most: float) -> None:
    random = torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(2, 3, CHUNK + 40, 32, generator=random) * 2 for _ in range(3))
    # All keys alike but for a little: rounded as they are, nothing of the little would be left.
    query, key, value = (part.to(dtype) for part in (query, key / 4 + (50 if in_integers else 0), value))
    # As a block has them, which lie the other way round in memory.
    value = value.transpose(1, 2).contiguous().transpose(1, 2)
    before = value.clone()
    exact = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    found = attend(query, key, value, in_integers=in_integers)
    exact = exact.transpose(1, 2).flatten(2)
    assert found.dtype == dtype
    assert (found.float() - exact).norm() / exact.norm() < most
    assert torch.equal(value, before)


@pytest.mark.parametrize(
    ("count", "in_integers", "by_heads"),
    [
        (LONG_IN_INTEGERS - 1, True, False), (LONG_IN_INTEGERS, True, True),
        (LONG - 1, False, False), (LONG, False, True),
    ],
)  # fmt: skip
def test_block_attends_by_heads_where_many_tokens_make_it_faster(
    count: int, in_integers: bool, by_heads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = nn.Sequential(Block(0, 64, 2, 2, 1e-5, True))
    block = round_blocks(block, "int8")[0] if in_integers else block[0]
    attended: list[bool] = []

    def attends(*heads: torch.Tensor, in_integers: bool) -> torch.Tensor:
        attended.append(in_integers)
        return attend(*heads, in_integers=in_integers)

    monkeypatch.setattr(blocks, "attend", attends)
    with torch.no_grad():
        block(torch.randn(1, count, 64), torch.zeros(1, count, 1, 16, 2), torch.zeros(4, 1, 64))
    assert attended == ([in_integers] if by_heads else [])
