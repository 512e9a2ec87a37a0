"""Model files in the layouts that people have: each gives the weights that it was made from."""

import os
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import CheckpointError
from models.inference.loading.components import load_text_encoder, load_transformer, load_vae
from models.inference.loading.copies import Copies
from models.inference.loading.tensors import Weights as Stored

CPU = torch.device("cpu")
NO_COPIES = Copies(Path("/nowhere"))
Weights = dict[str, Tensor]


def as_other_front_ends(weights: Weights) -> Weights:
    """The transformer's weights with fused qkv and the authors' names, as ComfyUI keeps them."""
    fused: Weights = {}
    for name, tensor in weights.items():
        if ".attention.to_q." in name:
            parts = [weights[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            fused[name.replace("to_q", "qkv")] = torch.cat(parts)
        elif not re.search(r"\.attention\.to_[kv]\.", name):
            renamed = re.sub(r"^all_(x_embedder|final_layer)\.2-1\.", r"\1.", name)
            renamed = renamed.replace("attention.to_out.0.", "attention.out.")
            fused[re.sub(r"attention\.norm_([qk])\.", r"attention.\1_norm.", renamed)] = tensor
    return fused | {"norm_final.weight": torch.ones(64)}


def prefixed(weights: Weights) -> Weights:
    return {f"model.diffusion_model.{name}": tensor for name, tensor in weights.items()}


def cast(dtype: torch.dtype) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()}


def scaled_fp8(weights: Weights, key: str, rows: bool) -> Weights:
    """Matrices in fp8 with a scale beside them, one for all or one for each row; the rest in bfloat16."""
    quantized: Weights = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for name, tensor in weights.items():
        if tensor.ndim < 2 or not name.endswith(".weight"):
            quantized[name] = tensor.to(torch.bfloat16)
            continue
        scale = tensor.abs().amax(dim=1) / 448 if rows else tensor.abs().max() / 448
        quantized[name] = (tensor / (scale[:, None] if rows else scale)).to(torch.float8_e4m3fn)
        quantized[name.removesuffix("weight") + key] = scale
        quantized[name.removesuffix("weight") + "scale_input"] = torch.ones(())
    return quantized


@pytest.fixture(scope="module")
def original(tiny_model: Path) -> Weights:
    return load_file(tiny_model / "transformer" / "diffusion_pytorch_model.safetensors")


def loaded(weights: Weights, tiny_model: Path, folder: Path) -> Weights:
    path = folder / "z_image.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    transformer = load_transformer(
        tiny_model / "transformer", path, torch.float32, CPU, Copies(folder / "cache")
    )
    state: Weights = transformer.state_dict()
    return state


@pytest.mark.parametrize(
    ("write", "tolerance"),
    [
        (lambda weights: weights, 0),
        (as_other_front_ends, 0),
        (lambda weights: prefixed(as_other_front_ends(weights)), 0),
        (lambda weights: cast(torch.bfloat16)(as_other_front_ends(weights)), 2**-8),
        (lambda weights: cast(torch.float16)(weights), 2**-10),
        (lambda weights: cast(torch.float8_e4m3fn)(as_other_front_ends(weights)), 2**-3),
        (lambda weights: scaled_fp8(as_other_front_ends(weights), "scale_weight", rows=False), 2**-3),
        (
            lambda weights: prefixed(scaled_fp8(as_other_front_ends(weights), "weight_scale", rows=True)),
            2**-3,
        ),
    ],
    ids=["diffusers", "fused", "prefixed", "bf16", "fp16", "fp8", "fp8 scaled", "fp8 scaled by row"],
)
def test_transformer_file_gives_the_weights_it_was_made_from(
    write: Callable[[Weights], Weights], tolerance: float, original: Weights, tiny_model: Path, tmp_path: Path
) -> None:
    got = loaded(write(original), tiny_model, tmp_path)
    assert got.keys() == original.keys()
    for name, tensor in got.items():
        assert tensor.dtype == torch.float32
        error = (tensor - original[name]).norm() / original[name].norm()
        assert error <= tolerance, name


def test_no_weight_keeps_another_in_memory(original: Weights, tiny_model: Path, tmp_path: Path) -> None:
    got = loaded(as_other_front_ends(original), tiny_model, tmp_path)
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in got.values()}
    assert sum(held.values()) == sum(tensor.nbytes for tensor in original.values())


@pytest.mark.parametrize("copied", [False, True], ids=["at once", "into a copy"])
@pytest.mark.parametrize("single", [False, True], ids=["folder", "single file"])
def test_two_tensors_at_most_are_in_memory_in_their_stored_type(
    copied: bool,
    single: bool,
    original: Weights,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live: list[weakref.ref[Tensor]] = []
    counts: list[int] = []
    stored_read = Stored.read

    def read(weights: Stored, name: str) -> Tensor:
        tensor = stored_read(weights, name)
        if tensor.dtype == torch.float32:
            live.append(weakref.ref(tensor))
            counts.append(sum(each() is not None for each in live))
        return tensor

    monkeypatch.setattr(Stored, "read", read)
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 1000 if copied else 2**62)
    save_file(as_other_front_ends(original), tmp_path / "z_image.safetensors")
    file = tmp_path / "z_image.safetensors" if single else None
    load_transformer(tiny_model / "transformer", file, torch.bfloat16, CPU, Copies(tmp_path / "cache"))
    assert len(counts) > 50
    # The published file's largest has 0.2 GB.
    assert max(counts) <= 2


def test_file_of_another_size_is_refused_with_shapes(
    original: Weights, tiny_model: Path, tmp_path: Path
) -> None:
    fused = as_other_front_ends(original)
    fused["layers.0.attention.qkv.weight"] = torch.zeros(96, 64)
    with pytest.raises(CheckpointError, match=r"to_k\.weight \(32, 64\) instead of \(64, 64\)"):
        loaded(fused, tiny_model, tmp_path)


def test_16_bit_copy_of_a_float32_checkpoint_is_kept_for_the_next_start(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 1000)

    def load() -> Weights:
        state: Weights = load_transformer(
            tiny_model / "transformer", None, torch.bfloat16, CPU, Copies(tmp_path)
        ).state_dict()
        return state

    first = load()
    (copy,) = tmp_path.iterdir()
    assert {tensor.dtype for tensor in load_file(copy).values()} == {torch.bfloat16}
    written = copy.stat().st_ino
    os.utime(copy, ns=(0, copy.stat().st_mtime_ns))
    again = load()
    assert all(torch.equal(first[name], again[name]) for name in first)
    # The same file, and the quota of the caches knows that it was used.
    assert [path.stat().st_ino for path in tmp_path.iterdir()] == [written]
    assert copy.stat().st_atime > 0


def test_no_copy_is_kept_of_a_small_checkpoint_or_without_room(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_transformer(tiny_model / "transformer", None, torch.bfloat16, CPU, Copies(tmp_path))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 1000)
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 2**62)
    load_transformer(tiny_model / "transformer", None, torch.bfloat16, CPU, Copies(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", [None, "scale_weight", "weight_scale"], ids=["plain", "scaled", "by row"])
def test_text_encoder_file_in_fp8_gives_the_weights_it_was_made_from(
    key: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_model / "text_encoder" / "model.safetensors")
    stored = scaled_fp8(weights, key, key == "weight_scale") if key else cast(torch.float8_e4m3fn)(weights)
    save_file(stored, tmp_path / "qwen_3_4b_fp8.safetensors")
    model = load_text_encoder(
        tiny_model / "text_encoder", tmp_path / "qwen_3_4b_fp8.safetensors", torch.float32, NO_COPIES
    )
    for name, tensor in weights.items():
        got = model.state_dict()[name]
        assert (got - tensor).norm() / tensor.norm() < 2**-4, name


@pytest.mark.parametrize("bare", [False, True], ids=["with the model. prefix", "without"])
def test_text_encoder_file_gives_the_same_hidden_states_and_words(
    bare: bool, tiny_model: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_model / "text_encoder" / "model.safetensors")
    if bare:
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(weights, tmp_path / "qwen.safetensors")
    tokens = torch.tensor([[1, 2, 3, 200]])
    outputs: list[Any] = []
    for file in (None, tmp_path / "qwen.safetensors"):
        model = load_text_encoder(tiny_model / "text_encoder", file, torch.float32, NO_COPIES)
        with torch.no_grad():
            outputs.append(model(input_ids=tokens, output_hidden_states=True))
    assert torch.equal(outputs[0].hidden_states[-2], outputs[1].hidden_states[-2])
    assert torch.equal(outputs[0].logits, outputs[1].logits)


def as_latent_diffusion(weights: Weights) -> Weights:
    """The autoencoder's weights by the latent diffusion authors' names, as `ae.safetensors` has them."""
    rules = (
        (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2"),
        (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
        (r"(coder)\.mid_block\.resnets\.0", r"\1.mid.block_1"),
        (r"(coder)\.mid_block\.resnets\.1", r"\1.mid.block_2"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
    )
    renamed: Weights = {}
    for name, tensor in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        name = re.sub(
            r"decoder\.up_blocks\.(\d)\.resnets\.(\d)",
            lambda match: f"decoder.up.{3 - int(match[1])}.block.{match[2]}",
            name,
        )
        name = re.sub(
            r"decoder\.up_blocks\.(\d)\.upsamplers\.0",
            lambda match: f"decoder.up.{3 - int(match[1])}.upsample",
            name,
        )
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("write", [as_latent_diffusion, dict], ids=["authors' names", "diffusers'"])
def test_autoencoder_file_decodes_to_the_same_picture(
    write: Callable[[Weights], Weights], tiny_model: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_model / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(write(weights), tmp_path / "ae.safetensors")
    latents = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    pictures = []
    for vae in (
        load_vae(tiny_model / "vae", tmp_path / "ae.safetensors", torch.float32),
        AutoencoderKL.from_pretrained(tiny_model / "vae"),
    ):
        with torch.no_grad():
            pictures.append(vae.decode(latents).sample)
    assert torch.equal(*pictures)
