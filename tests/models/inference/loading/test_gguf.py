"""GGUF files, written by the format's own package: each gives the weights that it was made from."""

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import GGUFQuantizationConfig, ZImageTransformer2DModel
from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor
from gguf import GGMLQuantizationType as Block
from safetensors.torch import load_file
from torch import Tensor

from models.errors import CheckpointError
from models.inference.engine import Engine
from models.inference.loading.components import Files, load_text_encoder, load_transformer
from models.inference.loading.footprint import footprint
from tests.models.inference.loading.test_checkpoint_formats import as_other_front_ends, prefixed

CPU = torch.device("cpu")
QWEN3 = {
    "model.embed_tokens.": "token_embd.",
    "model.layers.": "blk.",
    "model.norm.": "output_norm.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "mlp.": "ffn_",
    "self_attn.": "attn_",
    "_proj": "",
}
"""llama.cpp's names, as its files for Qwen3 have them."""


def write_gguf(
    path: Path, weights: dict[str, Tensor], block: Block = Block.F32, arch: str = "lumina2"
) -> Path:
    """Matrices in `block`, where their rows are whole blocks; the rest in float32, as converters leave it."""
    writer = gguf.GGUFWriter(path, arch)
    size, _ = gguf.GGML_QUANT_SIZES[block]
    for name, tensor in weights.items():
        values = tensor.float().numpy()
        kept = tensor.ndim < 2 or values.shape[-1] % size
        own = Block.F32 if kept else block
        writer.add_tensor(name, gguf.quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def original(tiny_model: Path) -> dict[str, Tensor]:
    return load_file(tiny_model / "transformer" / "diffusion_pytorch_model.safetensors")


def load(path: Path, tiny_model: Path) -> Any:
    return load_transformer(tiny_model / "transformer", path, torch.float32, CPU, path.parent / "cache")


@pytest.mark.parametrize(
    ("block", "tolerance"),
    [(Block.F32, 0), (Block.F16, 2**-11), (Block.BF16, 2**-8), (Block.Q8_0, 0.01), (Block.Q4_0, 0.12)],
    ids=lambda value: getattr(value, "name", None),
)
def test_transformer_file_gives_the_weights_it_was_made_from(
    block: Block, tolerance: float, original: dict[str, Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "z_image.gguf", as_other_front_ends(original), block)
    got = load(path, tiny_model).state_dict()
    assert got.keys() == original.keys()
    for name, tensor in got.items():
        assert tensor.dtype == torch.float32
        error = (tensor - original[name]).norm() / original[name].norm()
        assert error <= tolerance, name


@pytest.mark.parametrize("block", [Block.F16, Block.Q8_0, Block.Q4_0], ids=lambda block: block.name)
def test_diffusers_own_loader_works_the_same_numbers_out(
    block: Block, original: dict[str, Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "z_image.gguf", as_other_front_ends(original), block)
    theirs = ZImageTransformer2DModel.from_single_file(
        str(path),
        config=str(tiny_model / "transformer"),
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        torch_dtype=torch.float32,
    )
    ours = dict(load(path, tiny_model).named_parameters())
    for name, tensor in theirs.named_parameters():
        # Block scales are float16: there the products are rounded.
        assert torch.allclose(dequantize_gguf_tensor(tensor).float(), ours[name], rtol=2e-3, atol=1e-3), name


def test_a_server_runs_on_a_gguf_transformer_with_loras_as_on_any_other(
    original: dict[str, Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    from models.job import Job
    from tests.models.inference.test_engine import settings_for, write_lora

    path = write_gguf(tmp_path / "z_image.gguf", prefixed(as_other_front_ends(original)))
    job = Job(
        prompt="a red ball", width=64, height=64, num_inference_steps=2, seed=1, loras=(write_lora(tmp_path),)
    )
    pictures = []
    for transformer in (None, path):
        settings = settings_for(tiny_model, tmp_path / f"data-{transformer is None}", transformer=transformer)
        pictures.append(Engine.load(settings).generate(job, None, lambda step: None).images[0])
    assert np.array_equal(*pictures)


def test_text_encoder_file_by_llama_cpps_names_gives_the_same_words(tiny_model: Path, tmp_path: Path) -> None:
    weights = {}
    for name, tensor in load_file(tiny_model / "text_encoder" / "model.safetensors").items():
        for theirs, stored in QWEN3.items():
            name = name.replace(theirs, stored)
        weights[name] = tensor
    path = write_gguf(tmp_path / "qwen3.gguf", weights, arch="qwen3")
    tokens = torch.tensor([[1, 2, 3, 200]])
    folder = tiny_model / "text_encoder"
    with torch.no_grad():
        expected, got = (
            load_text_encoder(folder, file, torch.float32)(input_ids=tokens).logits for file in (None, path)
        )
    assert torch.equal(expected, got)


def test_memory_is_judged_by_the_weights_and_not_by_the_blocks(
    original: dict[str, Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "z_image.gguf", original, Block.Q4_0)
    judged = footprint(tiny_model, None, Files(transformer=path)).transformer
    assert judged == footprint(tiny_model, None).transformer


def test_files_that_are_not_sound_or_do_not_fit_are_refused(
    original: dict[str, Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "z_image.gguf"
    path.write_bytes(b"GGUF no more")
    with pytest.raises(CheckpointError, match=r"z_image\.gguf is no sound GGUF file"):
        load(path, tiny_model)
    data = write_gguf(path, original).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"z_image\.gguf is no sound GGUF file"):
        load(path, tiny_model)
    lacking = dict(original)
    del lacking["cap_pad_token"]
    with pytest.raises(CheckpointError, match="lacks cap_pad_token"):
        load(write_gguf(path, lacking), tiny_model)


def test_without_the_package_the_error_names_the_extra(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"`.* pip install .*gguf"):
        load(tmp_path / "z_image.gguf", tiny_model)
