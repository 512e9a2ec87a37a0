"""A model in 8 bits: half the memory, nearly the same picture, and LoRAs that come and go as ever."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.errors import ModelError
from models.inference.denoise.int8 import Int8Linear
from models.inference.denoise.rounding import EightBits
from models.inference.denoise.transformer import condition, predict
from models.inference.device.ring import Ring
from models.inference.engine import Engine
from models.inference.loading.components import load_transformer, stored_transformer
from models.inference.loading.copies import Copies
from models.inference.lora.stack import LoraStack
from models.job import Generated, Job, LoraFile
from models.weights import demo
from tests.models.inference.lora.lora_files import write
from tests.models.inference.test_engine import settings_for, write_lora
from training.samples import control_samples

CPU = torch.device("cpu")
# What a prompt leaves open, a small change of the numbers may decide otherwise: this one leaves little.
JOB = Job(
    prompt="a large red ball in the middle on grass under a clear blue sky", width=256, height=256, seed=1
)


LOHA = {"a": (64, 2), "b": (2, 64)}


def load(folder: Path, cache: Path, *, eight_bits: EightBits | None) -> torch.nn.Module:
    dtype = torch.float32
    model: torch.nn.Module = load_transformer(
        folder / "transformer", None, dtype, CPU, Copies(cache), eight_bits=eight_bits
    )
    return model


@pytest.fixture
def rounded(tiny_model: Path, tmp_path: Path) -> torch.nn.Module:
    return load(tiny_model, tmp_path, eight_bits="int8")


@pytest.fixture
def stack(rounded: torch.nn.Module, tiny_model: Path, tmp_path: Path) -> LoraStack:
    stored = stored_transformer(tiny_model / "transformer", None)
    return LoraStack(rounded, stored)


def draw(engine: Engine, job: Job = JOB) -> Generated:
    control = control_samples("depth", 1, job.height)[0].control if job.controlnet else None
    return engine.generate(job, control, lambda step: None)


def step(model: torch.nn.Module) -> Tensor:
    """What the model makes of one step."""
    random = torch.Generator().manual_seed(2)
    embeds = torch.randn(8, model.config.cap_feat_dim, generator=random)  # type: ignore[union-attr]
    latents = torch.randn(1, 16, 8, 8, generator=random)
    with torch.no_grad():
        return predict(model, condition(model, embeds, 8, 8), latents, 0.3)  # type: ignore[arg-type]


def bits(model: torch.nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in (*model.parameters(), *model.buffers())]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_engine_in_eight_bits_says_so_and_draws_nearly_the_same_with_and_without_control(
    tmp_path: Path,
) -> None:
    plain = Engine.load(settings_for(demo.FOLDER, tmp_path, dtype="float32"))
    engine = Engine.load(settings_for(demo.FOLDER, tmp_path, quantization="int8"))
    controlled = JOB.model_copy(update={"controlnet": demo.CONTROLNET, "control_scale": 0.8})
    for job in (JOB, controlled):
        one, other = draw(plain, job), draw(engine, job)
        assert 0 < np.abs(one.images[0].astype(int) - other.images[0]).mean() < 1
        assert (one.facts.dtype, other.facts.dtype) == ("float32", "int8")
    with engine._model.text_encoder() as text_encoder, engine._model.denoiser(controlled.controlnet) as parts:
        for model in (text_encoder, *parts):
            layers = [layer for layer in model.modules() if isinstance(layer, Int8Linear)]
            assert layers
            assert all(layer.weight.dtype == torch.int8 for layer in layers)


def test_small_lora_loses_nothing_and_leaves_no_trace(
    rounded: torch.nn.Module, stack: LoraStack, tiny_model: Path, tmp_path: Path
) -> None:
    lora = write_lora(tmp_path).model_copy(update={"scale": 1e-4})
    exact = load(tiny_model, tmp_path, eight_bits=None)
    name = "layers.0.feed_forward.w2"
    original = exact.get_parameter(f"{name}.weight").clone()
    LoraStack(exact).apply([lora])
    change = exact.get_parameter(f"{name}.weight") - original
    before, plain = bits(rounded), step(rounded)
    stack.apply([lora])
    layer = rounded.get_submodule(name)
    assert isinstance(layer, Int8Linear)
    # Each number of the change is less than 8 bits can tell.
    assert change.abs().mean() < layer.scale.mean() / 2
    assert layer.down is not None
    assert layer.up is not None
    assert torch.allclose(layer.up @ layer.down, change, rtol=1e-2, atol=1e-6)
    assert not torch.equal(step(rounded), plain)
    stack.apply([])
    assert same(bits(rounded), before)
    assert torch.equal(step(rounded), plain)


@pytest.mark.parametrize("kind", ["lokr", "loha", "diff"])
def test_change_without_low_factors_is_merged_into_the_file_s_weight(
    kind: str, rounded: torch.nn.Module, stack: LoraStack, tiny_model: Path, tmp_path: Path
) -> None:
    random = torch.Generator().manual_seed(4)
    side = rounded.get_parameter("layers.0.attention.to_q.weight").shape[0]
    shapes = {
        "lokr": {"lokr_w1": (4, 4), "lokr_w2": (side // 4, side // 4)},
        "loha": {
            "hada_w1_a": (side, 2),
            "hada_w1_b": (2, side),
            "hada_w2_a": (side, 2),
            "hada_w2_b": (2, side),
        },
        "diff": {"diff": (side, side)},
    }[kind]
    tensors = {
        f"diffusion_model.layers.0.attention.to_q.{name}": torch.randn(shape, generator=random) * 0.3
        for name, shape in shapes.items()
    }
    lora = write(tmp_path / "lora.safetensors", tensors)
    exact = load(tiny_model, tmp_path, eight_bits=None)
    LoraStack(exact).apply([lora])
    before = bits(rounded)
    stack.apply([lora])
    layer = rounded.get_submodule("layers.0.attention.to_q")
    wanted = exact.get_parameter("layers.0.attention.to_q.weight")
    assert ((layer.weight * layer.scale - wanted).abs() <= 0.501 * layer.scale).all()  # type: ignore[operator]
    stack.apply([])
    assert same(bits(rounded), before)


def test_lora_that_overflows_is_refused_and_none_is_applied(
    rounded: torch.nn.Module, stack: LoraStack, tmp_path: Path
) -> None:
    before = bits(rounded)
    huge: LoraFile = write_lora(tmp_path).model_copy(update={"scale": 1e38})
    with pytest.raises(ModelError, match="too large"):
        stack.apply([huge])
    assert same(bits(rounded), before)


def test_blocks_with_a_lora_stream_and_are_put_back(
    rounded: torch.nn.Module, stack: LoraStack, tmp_path: Path
) -> None:
    stack.apply([write_lora(tmp_path)])
    layers: list[torch.nn.Module] = list(rounded.layers)  # type: ignore[arg-type]
    x, rope, factors = torch.randn(1, 64, 64), torch.randn(1, 64, 1, 32, 2), torch.randn(4, 1, 64)
    expected = layers[0](x, rope, factors)
    tensors = [*layers[0].parameters(), *layers[0].buffers()]
    home = [tensor.data_ptr() for tensor in tensors]
    Ring(CPU).stream(rounded, layers)
    assert torch.equal(layers[0](x, rope, factors), expected)
    assert home == [tensor.data_ptr() for tensor in tensors]
