"""Products in e4m3, computed in float32: as exact as its three bits allow, with LoRAs beside them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.inference.denoise.fp8 import Fp8Linear, multiply_each
from models.inference.device.loaded_model import plan
from models.inference.device.ring import Ring
from models.inference.forecast import PUBLISHED
from models.inference.loading.components import load_transformer
from models.inference.loading.copies import Copies
from models.inference.lora.stack import LoraStack
from tests.models.inference.test_eight_bits import step
from tests.models.inference.test_engine import settings_for, write_lora

CPU = torch.device("cpu")


def linear(width: int, out: int) -> tuple[Tensor, Fp8Linear]:
    weight = torch.randn(out, width, generator=torch.Generator().manual_seed(0)) / width**0.5
    layer = nn.Linear(width, out, bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return weight, Fp8Linear.of(layer, wide=False)


def error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


def test_rounded_rows_are_off_by_less_than_a_sixteenth_of_each_number_and_a_row_of_zeros_stays() -> None:
    rows = torch.cat([torch.randn(4, 64) * 3000, torch.zeros(1, 64)])
    values, scale = Fp8Linear.round_rows(rows)
    assert (values.dtype, scale.shape) == (torch.float8_e4m3fn, (5, 1))
    assert values.float().abs().amax(1).tolist() == [448] * 4 + [0]
    assert ((values.float() * scale - rows).abs() <= rows.abs() / 16 + scale * 2**-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_is_that_of_the_weights_and_huge_columns_leave_something_of_the_others(
    dtype: torch.dtype,
) -> None:
    weight, layer = linear(256, 96)
    x = torch.randn(1, 40, 256).to(dtype)
    output = layer(x)
    assert (output.dtype, output.shape) == (dtype, (1, 40, 96))
    assert 1e-3 < error(output.float(), x.float() @ weight.t()) < 5e-2
    x[..., :3] = 5000
    for part in (weight, layer.weight.data):
        part[:, :3] = 0
    assert error(layer(x).float(), x.float() @ weight.t()) < 6e-2


def test_layers_of_the_same_tokens_round_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [linear(64, out)[1] for out in (32, 48)]
    x = torch.randn(1, 10, 64)
    expected = [layer(x) for layer in layers]
    rounded: list[Tensor] = []
    round_rows = Fp8Linear.round_rows
    monkeypatch.setattr(
        Fp8Linear, "round_rows", staticmethod(lambda values: rounded.append(values) or round_rows(values))
    )
    assert all(map(torch.equal, multiply_each(x, *layers), expected))
    assert len(rounded) == 1


def test_model_in_fp8_streams_and_a_lora_comes_and_goes(tiny_model: Path, tmp_path: Path) -> None:
    model = load_transformer(
        tiny_model / "transformer", None, torch.float32, CPU, Copies(tmp_path), eight_bits="fp8"
    )
    assert sum(isinstance(layer, Fp8Linear) for layer in model.modules()) == 7 * 8
    stack, plain = LoraStack(model), step(model)
    stack.apply([write_lora(tmp_path)])
    styled = step(model)
    assert error(styled, plain) > 0.01
    blocks = [*model.noise_refiner, *model.context_refiner, *model.layers]
    Ring(CPU).stream(model, blocks)
    assert torch.equal(step(model), styled)
    stack.apply([])
    assert torch.equal(step(model), plain)


@pytest.mark.parametrize(("device", "capability"), [("cpu", (0, 0)), ("cuda", (8, 6))])
def test_device_that_cannot_multiply_fp8_is_told_what_to_set(
    device: str, capability: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    settings = settings_for(tmp_path, tmp_path, quantization="fp8")
    with pytest.raises(ModelError, match=rf"8\.9 or later, which {device} is not: .*=int8 or off"):
        plan(device, PUBLISHED, settings, Copies(tmp_path))
