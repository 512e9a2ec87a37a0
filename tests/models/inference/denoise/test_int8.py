"""Products in 8 bits: exact as their scales allow, not blinded by a few huge columns, alike in any chunks."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.inference.denoise import int8
from models.inference.denoise.blocks import Block, round_blocks
from models.inference.denoise.int8 import CHUNK, Int8Linear, feed_forward, project, round_rows


def linear(width: int, out: int, *, wide: bool = False, seed: int = 0) -> tuple[Tensor, Int8Linear]:
    weight = torch.randn(out, width, generator=torch.Generator().manual_seed(seed)) / width**0.5
    layer = nn.Linear(width, out, bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return weight, Int8Linear.of(layer, wide=wide)


def tokens(count: int, width: int) -> Tensor:
    return torch.randn(1, count, width, generator=torch.Generator().manual_seed(9))


def error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


def test_rounded_rows_are_off_by_less_than_half_a_step_and_a_row_of_zeros_stays() -> None:
    rows = torch.cat([torch.randn(4, 64) * 3, torch.zeros(1, 64)])
    values, scale = round_rows(rows)
    assert (values.dtype, scale.shape) == (torch.int8, (5, 1))
    assert values.abs().amax(1).tolist() == [127] * 4 + [0]
    assert ((values * scale - rows).abs() <= 0.501 * scale).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_is_that_of_the_weights_within_eight_bits(dtype: torch.dtype) -> None:
    weight, layer = linear(256, 96)
    x = tokens(40, 256).to(dtype)
    output = layer(x)
    assert (output.dtype, output.shape) == (dtype, (1, 40, 96))
    assert 1e-4 < error(output.float(), x.float() @ weight.t()) < 2e-2


def test_chunks_change_no_bit() -> None:
    _, layer = linear(64, 32)
    x = tokens(3 * CHUNK + 7, 64)
    assert torch.equal(layer(x), torch.cat([layer(part) for part in x.split(5, 1)], 1))


def test_tokens_are_rounded_once_for_several_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [linear(64, 32, seed=seed)[1] for seed in range(3)]
    x, rounded = tokens(40, 64), list[Tensor]()
    monkeypatch.setattr(int8, "round_rows", lambda rows: rounded.append(rows) or round_rows(rows))
    outputs = project(x, *layers)
    assert len(rounded) == 1
    assert all(torch.equal(output, layer(x)) for output, layer in zip(outputs, layers, strict=True))


def test_columns_of_huge_values_leave_something_of_the_others() -> None:
    weight, layer = linear(256, 96, wide=True)
    narrow = linear(256, 96)[1]
    x = tokens(40, 256)
    x[..., [3, 77, 200]] *= 5000
    rest = x.clone()
    rest[..., [3, 77, 200]] = 0
    weight[:, [3, 77, 200]] = 0  # what is left is what the small values make
    for each in (layer, narrow):
        each.weight.data[:, [3, 77, 200]] = 0
    exact = rest @ weight.t()
    assert error(layer(x), exact) < 2e-2
    assert error(narrow(x), exact) > 0.5


def test_feed_forward_is_that_of_its_layers_and_rounds_nothing_between() -> None:
    (one, w1), (three, w3) = linear(64, 256, seed=1), linear(64, 256, seed=3)
    two, w2 = linear(256, 64, wide=True, seed=2)
    x = tokens(CHUNK * 2 + 3, 64)
    exact = (F.silu(x @ one.t()) * (x @ three.t())) @ two.t()
    assert error(feed_forward(w1, w2, w3, x), exact) < 2.5e-2


def test_device_without_integer_products_widens_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, layer = linear(256, 96, wide=True)
    x = tokens(40, 256)
    monkeypatch.setattr(int8, "_has_fast_integers", lambda device: False)
    monkeypatch.setattr(torch, "_int_mm", None)
    assert error(layer(x), x @ weight.t()) < 1e-2


def test_processor_without_integer_instructions_is_told_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for integers, floats, fast in ((1.0, 2.0, True), (2.0, 1.0, False)):
        # Busy for the first six turns, as a machine is at its start.
        times = iter([9.0] * 12 + [integers, floats] * 4)
        monkeypatch.setattr(int8, "_seconds", lambda work, times=times: next(times))
        assert int8._has_fast_integers.__wrapped__(torch.device("cpu")) is fast


EXTREMES = """
import torch
from models.inference.denoise import int8
values, weight = (torch.randint(-127, 128, (rows, 400), dtype=torch.int8) for rows in (50, 96))
values[:2], weight[:4] = torch.tensor([[127], [-127]]), torch.tensor([[127], [-127], [1], [0]])
assert torch.equal(int8.integer_product(values, weight), values.int() @ weight.int().t())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a fault of x86 processors")
def test_products_are_exact_on_a_processor_that_adds_pairs_of_them_in_16_bits() -> None:
    older = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    subprocess.run([sys.executable, "-c", EXTREMES + "assert int8._saturates()"], env=older, check=True)


def test_factors_beside_a_weight_are_not_rounded_and_leave_no_trace() -> None:
    _, layer = linear(256, 96, wide=True)
    x = tokens(40, 256)
    before = layer(x)
    down, up = torch.randn(4, 256) * 1e-4, torch.randn(96, 4)
    layer.put_beside(down, up)
    assert error(layer(x) - before, x @ (up @ down).t()) < 1e-3
    layer.restore()
    assert torch.equal(layer(x), before)


def test_replaced_weight_is_put_back_bit_for_bit() -> None:
    weight, layer = linear(64, 32)
    kept = layer.weight.clone(), layer.scale.clone()
    layer.replace(weight * 3)
    layer.replace(weight * 5)
    assert layer.scale.sum() == pytest.approx(5 * kept[1].sum())
    layer.restore()
    assert torch.equal(layer.weight, kept[0])
    assert torch.equal(layer.scale, kept[1])


def test_layers_with_a_bias_and_all_but_two_parts_of_a_block_stay_as_they_are() -> None:
    block = Block(0, 64, 2, 2, 1e-5, True)
    round_blocks(nn.Sequential(block), "int8")
    rounded = {name for name, layer in block.named_modules() if isinstance(layer, Int8Linear)}
    assert rounded == {
        *(f"attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
        *(f"feed_forward.{name}" for name in ("w1", "w2", "w3")),
    }
    assert {name for name in rounded if block.get_submodule(name).wide} == {"feed_forward.w2"}
