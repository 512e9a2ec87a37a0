"""GGUF files, written by the format's own package: each gives the weights that it was made from."""

import struct
import sys
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gguf
import numpy as np
import pytest
import torch
from diffusers import GGUFQuantizationConfig, ZImageTransformer2DModel
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf import GGMLQuantizationType as Block
from safetensors.torch import load_file
from torch import Tensor

from models.errors import CheckpointError
from models.inference.engine import Engine
from models.inference.loading.components import Files, load_text_encoder, load_transformer
from models.inference.loading.copies import Copies
from models.inference.loading.footprint import footprint
from models.inference.loading.gguf import GgufFile
from models.inference.loading.gguf_header import _Header
from models.job import Job
from tests.models.inference.loading.test_checkpoint_formats import as_other_front_ends, prefixed

CPU = torch.device("cpu")
NO_COPIES = Copies(Path("/nowhere"))
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
    # As converters do.
    writer.add_token_list([f"word {place}" for place in range(300)])
    writer.add_token_types([1] * 300)
    writer.add_add_bos_token(value=False)
    writer.add_rope_freq_base(1e6)
    writer.add_custom_alignment(64)
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


def llama_names(tiny_model: Path) -> dict[str, Tensor]:
    """The text encoder's weights by llama.cpp's names."""
    weights = {}
    for name, tensor in load_file(tiny_model / "text_encoder" / "model.safetensors").items():
        for theirs, stored in QWEN3.items():
            name = name.replace(theirs, stored)
        weights[name] = tensor
    return weights


@pytest.fixture(scope="module")
def original(tiny_model: Path) -> dict[str, Tensor]:
    return load_file(tiny_model / "transformer" / "diffusion_pytorch_model.safetensors")


def load(path: Path, tiny_model: Path) -> Any:
    return load_transformer(
        tiny_model / "transformer", path, torch.float32, CPU, Copies(path.parent / "cache")
    )


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


K_BLOCKS = [Block.Q2_K, Block.Q3_K, Block.Q4_K, Block.Q5_K, Block.Q6_K]
"""As in unsloth's and leejet's files. The package has no writer of them: any bytes are numbers."""


@pytest.mark.parametrize("block", K_BLOCKS, ids=lambda block: block.name)
def test_k_blocks_are_read_in_parts_as_diffusers_reads_them_whole(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, size = gguf.GGML_QUANT_SIZES[block]
    data = np.random.default_rng(3).integers(0, 60, (24, 2 * size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "lumina2")
    writer.add_tensor("table", data, raw_dtype=block)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.setattr("models.inference.loading.gguf.VALUES_AT_ONCE", 5 * 2 * values)
    got = GgufFile(tmp_path / "k.gguf").read("table")
    assert got.shape == (24, 2 * values)
    theirs = dequantize_gguf_tensor(GGUFParameter(torch.from_numpy(data), quant_type=block)).float()
    assert (got - theirs).norm() / theirs.norm() < 2e-3


@pytest.mark.parametrize("block", [Block.Q8_0, Block.Q4_0], ids=lambda block: block.name)
def test_file_becomes_our_eight_bits_a_tensor_at_a_time(
    block: Block,
    original: dict[str, Tensor],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = prefixed(as_other_front_ends(original))
    # As stable-diffusion.cpp writes them: without dimensions of one.
    weights = {name: tensor.squeeze() for name, tensor in weights.items()}
    path = write_gguf(tmp_path / "z_image_turbo.gguf", weights, block)
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 0)
    read, alive, most = GgufFile.read, 0, 0

    def counted(self: GgufFile, name: str) -> Tensor:
        nonlocal alive, most
        tensor = read(self, name)
        alive, most = alive + 1, max(most, alive + 1)

        def gone() -> None:
            nonlocal alive
            alive -= 1

        weakref.finalize(tensor, gone)
        return tensor

    monkeypatch.setattr(GgufFile, "read", counted)
    folder, wide = tiny_model / "transformer", dict(load(path, tiny_model).named_parameters())
    alive = most = 0
    for _ in ("written", "mapped"):
        model = load_transformer(
            folder, path, torch.bfloat16, CPU, Copies(tmp_path / "cache"), eight_bits="int8", mapped=True
        )
        assert model.x_pad_token.shape == wide["x_pad_token"].shape
        layer = model.get_submodule("layers.1.feed_forward.w2")
        exact = wide["layers.1.feed_forward.w2.weight"]
        assert (layer.weight * layer.scale - exact).abs().max() <= 0.51 * layer.scale.max()
    assert 0 < most <= 2


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_server_on_a_cpu_keeps_a_narrow_file_in_eight_bits(
    part: str, original: dict[str, Tensor], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models.inference.test_engine import settings_for

    if part == "transformer":
        path = write_gguf(tmp_path / "z-image-turbo-Q8_0.gguf", as_other_front_ends(original), Block.Q8_0)
    else:
        path = write_gguf(tmp_path / "Qwen3-4B-Q8_0.gguf", llama_names(tiny_model), Block.Q8_0, "qwen3")
    monkeypatch.setattr("models.inference.device.placement.SMALL_PARAMETERS", 0)
    monkeypatch.setattr("models.inference.loading.copies.WORTHWHILE_BYTES", 0)
    read = Mock(wraps=_Header)
    monkeypatch.setattr("models.inference.loading.gguf_header._Header", read)
    engine = Engine.load(settings_for(tiny_model, tmp_path / "data", dtype="auto", **{part: path}))
    # Seconds each time, if its reader made objects of a vocabulary.
    assert read.call_count == 1
    assert engine._model.placement.precision == "int8"
    job = Job(prompt="a red ball", width=64, height=64, num_inference_steps=1, seed=1)
    assert engine.generate(job, None, lambda step: None).facts.dtype == "int8"


def test_a_server_runs_on_a_gguf_transformer_with_loras_as_on_any_other(
    original: dict[str, Tensor], tiny_model: Path, tmp_path: Path
) -> None:
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
    path = write_gguf(tmp_path / "qwen3.gguf", llama_names(tiny_model), arch="qwen3")
    tokens = torch.tensor([[1, 2, 3, 200]])
    folder = tiny_model / "text_encoder"
    with torch.no_grad():
        expected, got = (
            load_text_encoder(folder, file, torch.float32, NO_COPIES)(input_ids=tokens).logits
            for file in (None, path)
        )
    assert torch.equal(expected, got)


def test_memory_is_judged_by_the_weights_and_not_by_the_blocks(
    original: dict[str, Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "z_image.gguf", original, Block.Q4_0)
    judged = footprint(tiny_model, None, Files(transformer=path)).transformer
    assert judged == footprint(tiny_model, None).transformer


def test_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "z_image.gguf"
    data = write_gguf(path, {"a": torch.ones(32, 32), "b": torch.ones(8)}, Block.Q8_0).read_bytes()
    assert GgufFile(path).shapes() == {"a": (32, 32), "b": (8,)}
    for length in (*range(0, len(data) - 64, 61), len(data) - 64):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"z_image\.gguf is no sound GGUF file"):
            GgufFile(path)


@pytest.mark.parametrize(
    ("sound", "faulty"),
    [
        (struct.pack("<4sI", b"GGUF", 3), struct.pack("<4sI", b"GGUF", 1)),
        # The types of a value, of a list's values, and of a tensor.
        (b"general.architecture" + struct.pack("<I", 8), b"general.architecture" + struct.pack("<I", 77)),
        (struct.pack("<IIQ", 9, 8, 300), struct.pack("<IIQ", 9, 9, 300)),
        (struct.pack("<QQI", 32, 32, 8), struct.pack("<QQI", 32, 32, 777)),
        # Rows, their length and their count, and the place of the tensor's bytes.
        (struct.pack("<QQI", 32, 32, 8), struct.pack("<QQI", 33, 32, 8)),
        (struct.pack("<QQI", 32, 32, 8), struct.pack("<QQI", 32, 2**63, 8)),
        (b"a" + struct.pack("<I", 2), b"a" + struct.pack("<I", 5)),
        (
            struct.pack("<Q", 1) + b"a" + struct.pack("<I", 2),
            struct.pack("<Q", 1) + b"b" + struct.pack("<I", 2),
        ),
        (b"general.alignment" + struct.pack("<II", 4, 64), b"general.alignment" + struct.pack("<II", 4, 0)),
    ],
)
def test_header_that_is_not_sound_is_refused(sound: bytes, faulty: bytes, tmp_path: Path) -> None:
    path = tmp_path / "z_image.gguf"
    data = write_gguf(path, {"a": torch.ones(32, 32), "b": torch.ones(8, 32)}, Block.Q8_0).read_bytes()
    assert data.count(sound) == 1
    path.write_bytes(data.replace(sound, faulty))
    with pytest.raises(CheckpointError, match=r"z_image\.gguf is no sound GGUF file"):
        GgufFile(path)


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
