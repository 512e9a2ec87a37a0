import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from models.errors import CheckpointError
from models.weights.header import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    Header,
    TensorInfo,
    header_bytes,
    kind,
    read_header,
)

ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write(path: Path, header: object, data: bytes = bytes(16)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_reads_what_safetensors_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays = {
        "x": np.arange(12, dtype=np.float32).reshape(3, 4),
        "scalar": np.array(1.0, np.float16),
        "empty": np.zeros((0, 5), np.int64),
        "flags": np.ones(7, bool),
    }
    save_file(arrays, path, metadata={"format": "pt"})
    header = read_header(path)
    assert header.metadata == {"format": "pt"}
    assert {name: info.shape for name, info in header.tensors.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    x = header.tensors["x"]
    assert (x.dtype, x.shape) == ("F32", (3, 4))
    stored = path.read_bytes()[x.offset : x.offset + arrays["x"].nbytes]
    assert stored == arrays["x"].tobytes()


def test_safetensors_reads_tensors_behind_a_header_of_ours(tmp_path: Path) -> None:
    arrays = {
        "x": np.arange(3, dtype=np.float32),
        "none": np.zeros((0, 5), np.int64),
        "y": np.arange(7, dtype=np.int8),
    }
    header = header_bytes({"x": ("F32", (3,)), "none": ("I64", (0, 5)), "y": ("I8", (7,))})
    assert len(header) % 8 == 0
    path = tmp_path / "a.safetensors"
    path.write_bytes(header + b"".join(array.tobytes() for array in arrays.values()))
    with safe_open(path, framework="np") as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": np.zeros(100, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"a\.safetensors holds 399 bytes of weights .* says 400"):
        read_header(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a pickle in a zip",
        b"\x80\x04\x95",
        bytes(8),
        b"<!doctype html><html>not found</html>",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 1) + b"{",
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^a\.safetensors is not a safetensors file"):
        read_header(path)


def test_missing_file_is_refused_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path / "a.safetensors")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        [],
        b"[" * 100_000,
        b'{"x": 1' + b"0" * 5000 + b"}",
        b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "x": {}}',
        {"x": None},
        {"x": {}},
        {"x": {**ENTRY, "dtype": "OBJECT"}},
        {"x": {**ENTRY, "dtype": ["F32"]}},
        {"x": {**ENTRY, "shape": [2, 3]}},
        {"x": {**ENTRY, "shape": [-2, -2]}},
        {"x": {**ENTRY, "shape": [True, 4]}},
        {"x": {**ENTRY, "shape": [4.0]}},
        {"x": {**ENTRY, "shape": [1] * 9 + [4]}},
        {"x": {**ENTRY, "shape": [2**62, 2**62]}},
        {"x": {**ENTRY, "data_offsets": [16, 0]}},
        {"x": {**ENTRY, "data_offsets": [16, 32]}},
        {"x": {**ENTRY, "data_offsets": [0]}},
        {"x": ENTRY, "y": ENTRY},
        {"__metadata__": {"a": 1}, "x": ENTRY},
        {"__metadata__": [], "x": ENTRY},
    ],
)
def test_faulty_headers_are_refused(tmp_path: Path, header: object) -> None:
    with pytest.raises(CheckpointError):
        read_header(write(tmp_path / "a.safetensors", header))


def test_a_flood_of_tensors_is_refused(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    most = {f"x{i}": empty for i in range(MAX_TENSORS)}
    assert len(read_header(write(tmp_path / "most.safetensors", most, b"")).tensors) == MAX_TENSORS
    with pytest.raises(CheckpointError, match="20,001 tensors"):
        read_header(write(tmp_path / "more.safetensors", {**most, "y": empty}, b""))


def test_a_huge_header_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(CheckpointError, match="header of 16,777,217 bytes"):
        read_header(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


numbers = st.integers(-2, 40) | st.integers() | st.floats() | st.booleans() | st.none()
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F4", "F6_E2M3", "BOOL", "X"]),
        "shape": st.lists(numbers, max_size=3),
        "data_offsets": st.lists(numbers, max_size=3),
    }
)
headers = st.dictionaries(
    st.text(max_size=5) | st.just("__metadata__"), entries | st.text() | numbers, max_size=4
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200) | headers.map(json.dumps).map(str.encode), st.binary(max_size=48))
def test_nothing_but_checkpoint_error_comes_out(folder: Path, header: bytes, data: bytes) -> None:
    path = write(folder / "a.safetensors", header, data)
    try:
        found = read_header(path)
    except CheckpointError:
        return
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == set(found.tensors)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "b.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        read_header(path)


def header_of(*names: str) -> Header:
    return Header({name: TensorInfo("F32", (1,), 0) for name in names}, {})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["control_layers.0.attention.to_q.weight", "control_all_x_embedder.2-1.weight"], "controlnet"),
        (["transformer.layers.0.attention.to_q.lora_A.weight"], "lora"),
        (["diffusion_model.layers.0.attention.qkv.lora_B.default.weight"], "lora"),
        (["lora_unet__layers_0_attention_to_q.lora_down.weight"], "lora"),
        (["layers.0.attention.to_q.lora.up.weight"], "lora"),
        (["layers.0.feed_forward.w1.lokr_w1"], "lora"),
        (["layers.0.feed_forward.w1.hada_w1_a"], "lora"),
        (["control_layers.0.attention.to_q.lora_A.weight"], "lora"),
        (["layers.0.attention.to_q.weight", "all_x_embedder.2-1.weight"], "transformer"),
        (
            [
                "model.diffusion_model.layers.0.attention.qkv.weight",
                "model.diffusion_model.x_embedder.weight",
            ],
            "transformer",
        ),
        (["model.layers.0.self_attn.q_proj.weight"], "unknown"),
        ([], "unknown"),
    ],
)
def test_kind_is_told_by_the_keys(names: list[str], expected: Any) -> None:
    assert kind(header_of(*names)) == expected
