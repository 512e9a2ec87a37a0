"""float16 where the products of the blocks pass its largest number: finite, and what float32 gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImageControlNetModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.inference.control.controlnet import load_controlnet
from models.inference.denoise.float16 import STREAM
from models.inference.denoise.rounding import EightBits
from models.inference.denoise.transformer import Control, condition, control_tokens, predict
from models.inference.loading.components import load_text_encoder, load_transformer
from models.inference.loading.copies import Copies
from models.inference.lora.stack import LoraStack
from models.inference.text_encoder import hidden_states
from models.job import LoraFile
from tests.models.inference.test_engine import write_lora
from tests.models.inference.untrained import CONTROLNET

CPU = torch.device("cpu")
LARGEST = torch.finfo(torch.float16).max
LARGER = {
    "feed_forward.w1": 300,
    "feed_forward.w3": 300,
    "feed_forward.w2": 30,
    "attention.to_v": 900,
    "to_out.0": 900,
}
"""What the tiny model's random weights are multiplied by, so that their products overflow."""


@pytest.fixture(scope="module")
def large(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer's folder and a control branch whose products are large, in numbers that float16 has."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "config.json").write_bytes((tiny_model / "transformer" / "config.json").read_bytes())
    for source, target in (
        (tiny_model / "transformer" / "diffusion_pytorch_model.safetensors", "model.safetensors"),
        (tiny_model / CONTROLNET, "branch/control.safetensors"),
    ):
        (folder / target).parent.mkdir(exist_ok=True)
        tensors = {}
        for name, tensor in load_file(source).items():
            by = next((by for part, by in LARGER.items() if name.endswith(f"{part}.weight")), 1)
            tensors[name] = (tensor * by).half().float()
        save_file(tensors, folder / target)
    return folder


def load(
    folder: Path, dtype: torch.dtype, *, eight_bits: EightBits | None = None
) -> tuple[Any, ZImageControlNetModel]:
    copies = Copies(folder / "cache")
    transformer = load_transformer(folder, None, dtype, CPU, copies, eight_bits=eight_bits)
    branch = folder / "branch" / "control.safetensors"
    return transformer, load_controlnet(branch, transformer.config, dtype, CPU, eight_bits=eight_bits)[0]


def step(transformer: Any, branch: ZImageControlNetModel) -> Tensor:
    random = torch.Generator().manual_seed(2)
    embeds = torch.randn(8, transformer.config.cap_feat_dim, generator=random)
    latents, control = torch.randn(2, 1, 16, 8, 8, generator=random)
    tokens = control_tokens(transformer, branch, control)
    with torch.no_grad():
        conditioning = condition(transformer, embeds, 8, 8)
        return predict(transformer, conditioning, latents, 0.3, Control(branch, tokens, 0.8))


def largest(model: Any, name: str, work: Callable[[], object]) -> float:
    """The largest number that the layers of this name give."""
    seen = [0.0]
    hooks = [
        layer.register_forward_hook(lambda _, __, output: seen.append(output.abs().max().item()))
        for place, layer in model.named_modules()
        if place.endswith(name)
    ]
    work()
    for hook in hooks:
        hook.remove()
    return max(seen)


@pytest.mark.parametrize("with_lora", [False, True])
def test_products_beyond_float16_are_finite_and_what_float32_gives(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_lora: bool
) -> None:
    loras: list[LoraFile] = [write_lora(tmp_path)] if with_lora else []
    exact, narrow = load(large, torch.float32), load(large, torch.float16)
    for transformer, _ in (exact, narrow):
        LoraStack(transformer).apply(loras)
    for name in ("feed_forward.w2", "to_out.0"):
        assert largest(exact[0], name, lambda: step(*exact)) > LARGEST
        assert largest(narrow[0], name, lambda: step(*narrow)) < LARGEST / 4
    expected, got = step(*exact), step(*narrow)
    assert got.isfinite().all()
    error = (got - expected).norm() / expected.norm()
    # float16 has 11 bits; bfloat16, which has 8, is farther off.
    assert error < 4 * torch.finfo(torch.float16).eps
    wide = load(large, torch.bfloat16)
    LoraStack(wide[0]).apply(loras)
    assert error < (step(*wide) - expected).norm() / expected.norm()


def test_without_the_factors_they_overflow(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("control.controlnet", "loading.components"):
        monkeypatch.setattr(f"models.inference.{place}.shrink", lambda model: model)
    assert not step(*load(large, torch.float16)).isfinite().all()


def test_eight_bits_with_the_rest_in_float16_are_finite_too(large: Path) -> None:
    got, expected = step(*load(large, torch.float16, eight_bits="int8")), step(*load(large, torch.float32))
    # As far off as 8 bits are.
    assert (got - expected).norm() / expected.norm() < 0.05


WORDS = torch.arange(1, 9)[None]


@pytest.fixture(scope="module")
def loud(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder whose second layer adds values to the stream that float16 does not have."""
    folder = tmp_path_factory.mktemp("loud")
    source = tiny_model / "text_encoder"
    for path in source.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    for path in source.glob("*.safetensors"):
        tensors = load_file(path)
        for name in ("mlp.up_proj", "mlp.down_proj"):
            tensors[f"model.layers.0.{name}.weight"] *= 250
        save_file(tensors, folder / path.name, {"format": "pt"})
    return folder


@pytest.mark.parametrize("mapped", [False, True])
def test_text_encoder_beyond_float16_gives_what_float32_gives(loud: Path, mapped: bool) -> None:
    def load_as(dtype: torch.dtype) -> Any:
        return load_text_encoder(loud, None, dtype, Copies(loud / "cache"), mapped=mapped)

    exact, narrow = load_as(torch.float32), load_as(torch.float16)
    expected, got = hidden_states(exact, WORDS), hidden_states(narrow, WORDS).float() / STREAM
    assert expected.abs().max() > LARGEST
    assert (got - expected).norm() / expected.norm() < 4 * torch.finfo(torch.float16).eps
    # Magic Prompt's.
    with torch.no_grad():
        expected, got = exact(WORDS).logits, narrow(WORDS).logits.float()
    assert (got - expected).norm() / expected.norm() < 8 * torch.finfo(torch.float16).eps


def test_transformer_reads_the_smaller_embedding_as_the_whole_one(tiny_model: Path) -> None:
    def caption(dtype: torch.dtype, factor: float) -> Tensor:
        transformer = load_transformer(tiny_model / "transformer", None, dtype, CPU, Copies(Path("none")))
        # Small enough that the norm's eps counts.
        embeds = 0.01 * torch.randn(
            8, transformer.config.cap_feat_dim, generator=torch.Generator().manual_seed(3)
        )
        with torch.no_grad():
            return condition(transformer, factor * embeds, 8, 8).caption.float()

    expected, got = caption(torch.float32, 1), caption(torch.float16, STREAM)
    assert (got - expected).norm() / expected.norm() < 8 * torch.finfo(torch.float16).eps


def test_without_the_stream_s_factor_the_text_encoder_overflows(
    loud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.loading.components.shrink_stream", lambda model: model)
    narrow = load_text_encoder(loud, None, torch.float16, Copies(loud / "cache"))
    assert not hidden_states(narrow, WORDS).isfinite().all()
