"""Blocks in 8 bits: half the memory, nearly the same picture, and LoRAs that come and go as ever."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.errors import ModelError
from models.inference.device.offload import on_device, stream
from models.inference.device.quantization import is_quantized, quantize_blocks, tensors_of
from models.inference.engine import Engine
from models.inference.loading.components import load_transformer, stored_transformer
from models.inference.lora.stack import LoraStack
from models.job import Generated, Job, LoraFile
from tests.models.inference.test_engine import settings_for, write_lora

CPU = torch.device("cpu")
JOB = Job(prompt="a red ball", width=64, height=64, num_inference_steps=2, seed=1)


@pytest.fixture
def whole(tiny_model: Path, tmp_path: Path) -> torch.nn.Module:
    model: torch.nn.Module = load_transformer(tiny_model / "transformer", None, torch.bfloat16, CPU, tmp_path)
    return model


@pytest.fixture
def stack(whole: torch.nn.Module, tiny_model: Path, tmp_path: Path) -> LoraStack:
    """LoRAs on `whole`, in 8 bits."""
    stored = stored_transformer(tiny_model / "transformer", None, torch.bfloat16, tmp_path)
    return LoraStack(quantize_blocks(whole), stored)


def draw(engine: Engine, job: Job = JOB) -> Generated:
    control = np.full((job.height, job.width, 3), 128, np.uint8) if job.controlnet else None
    return engine.generate(job, control, lambda step: None)


def stored_in(model: torch.nn.Module) -> list[Tensor]:
    return [part for weight in model.parameters() for part in tensors_of(weight)]


def bits(model: torch.nn.Module) -> list[Tensor]:
    return [part.clone() for part in stored_in(model)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def test_every_matrix_of_a_block_takes_half_and_is_off_by_less_than_half_a_step(
    whole: torch.nn.Module,
) -> None:
    before = {name: weight.clone() for name, weight in whole.named_parameters()}
    quantize_blocks(whole)
    packed = {name: weight for name, weight in whole.named_parameters() if is_quantized(weight)}
    assert set(packed) == {
        name for name in before if ".attention.to_" in name or ".feed_forward." in name
    }  # fmt: skip
    for name, weight in packed.items():
        numbers, scale = tensors_of(weight)[:2]
        assert numbers.dtype == torch.int8
        error = (numbers * scale - before[name].float()).abs()
        assert (error <= 0.51 * scale).all()


def test_quantized_engine_draws_nearly_the_same_picture_with_and_without_control(
    tiny_model: Path, tmp_path: Path
) -> None:
    plain = Engine.load(settings_for(tiny_model, tmp_path))
    engine = Engine.load(settings_for(tiny_model, tmp_path, quantization="int8"))
    controlled = JOB.model_copy(
        update={"controlnet": tiny_model / "controlnet.safetensors", "control_scale": 0.8}
    )
    for job in (JOB, controlled):
        one, other = draw(plain, job).images[0].astype(int), draw(engine, job).images[0]
        assert 0 < np.abs(one - other).mean() < 3


def test_small_lora_is_merged_before_rounding_and_leaves_no_trace(
    whole: torch.nn.Module, stack: LoraStack, tiny_model: Path, tmp_path: Path
) -> None:
    lora = write_lora(tmp_path).model_copy(update={"scale": 1e-4})
    before, addresses = bits(whole), [part.data_ptr() for part in stored_in(whole)]
    exact = load_transformer(tiny_model / "transformer", None, torch.float32, CPU, tmp_path)
    name = "layers.0.feed_forward.w2.weight"
    original = exact.get_parameter(name).clone()
    LoraStack(exact).apply([lora])
    change = exact.get_parameter(name) - original
    stack.apply([lora])
    numbers, scale = tensors_of(whole.get_parameter(name))[:2]
    # Each number of the change is less than 8 bits can tell; along the whole of it none is lost.
    assert change.abs().mean() < scale.mean() / 2
    kept = ((numbers * scale - original) * change).sum() / change.square().sum()
    assert kept == pytest.approx(1, abs=0.1)
    stack.apply([])
    assert same(bits(whole), before)
    assert addresses == [part.data_ptr() for part in stored_in(whole)]


def test_lora_that_overflows_is_refused_and_none_is_applied(
    whole: torch.nn.Module, stack: LoraStack, tmp_path: Path
) -> None:
    before = bits(whole)
    huge: LoraFile = write_lora(tmp_path).model_copy(update={"scale": 1e38})
    with pytest.raises(ModelError, match="too large"):
        stack.apply([huge])
    assert same(bits(whole), before)


def test_quantized_blocks_are_copied_to_a_device_and_put_back(whole: torch.nn.Module) -> None:
    quantize_blocks(whole)
    layers: list[torch.nn.Module] = list(whole.layers)  # type: ignore[arg-type]
    x, rope, time = torch.randn(1, 64, 64).bfloat16(), torch.randn(1, 64, 1, 32, 2), torch.randn(1, 64)
    expected = layers[0](x, rope, time.bfloat16())
    home = [part.data_ptr() for part in stored_in(layers[0])]
    with on_device(layers[0], CPU):
        assert not set(home) & {part.data_ptr() for part in stored_in(layers[0])}
    stream(layers, CPU)
    assert torch.equal(layers[0](x, rope, time.bfloat16()), expected)
    assert home == [part.data_ptr() for part in stored_in(layers[0])]


def test_missing_torchao_is_said_in_a_sentence(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.device.quantization.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'zturbo\[int8\]'"):
        Engine.load(settings_for(tiny_model, tmp_path, quantization="int8"))
