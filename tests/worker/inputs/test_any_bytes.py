"""Bytes that strangers send: pictures, data URIs, safetensors headers.

Whatever they are, the answer is a value or this server's own error, without a word of a library's.

`ZTURBO_TEST_EXAMPLES=20000 pytest tests/worker/inputs/test_any_bytes.py` looks longer than the suite does.
"""

import base64
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from PIL import Image

from models.errors import CheckpointError
from models.weights.header import kind, read_header
from worker.config import WorkerSettings
from worker.errors import FetchError, ImageError
from worker.inputs.decode import FORMATS, MAX_SIDE, read_image
from worker.inputs.input_image import read_source
from worker.storage.folder import FolderObjects
from worker.storage.pictures import Storage

EXAMPLES = int(os.environ.get("ZTURBO_TEST_EXAMPLES", "150"))
quickly = profile(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LEAKS = (" at 0x", "<_io", "Traceback", "PIL", "Error", "/tmp")


def check_sentence(sentence: str, begins: str) -> None:
    assert sentence.startswith(begins)
    assert not any(leak in sentence for leak in LEAKS)


def _pictures() -> list[bytes]:
    made = []
    for format in FORMATS[:-1]:
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            Image.new(mode, (9, 7), 3).save(file, format)
            made.append(file.getvalue())
    return made + [path.read_bytes() for path in (Path(__file__).parent / "pictures").glob("*.heic")]


@st.composite
def damaged(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """One of `whole` with some bytes changed, then cut off or made longer."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(len(data) // 2, len(data)))
    return bytes(data[:end]) + draw(st.binary(max_size=8))


@quickly
@given(data=damaged(_pictures()) | st.binary(max_size=300))
def test_any_picture(data: bytes) -> None:
    try:
        pixels = read_image(data, "image_url")
    except ImageError as error:
        check_sentence(str(error), "image_url: ")
    else:
        height, width, channels = pixels.shape
        assert channels == 3
        assert 0 < height <= MAX_SIDE
        assert 0 < width <= MAX_SIDE


PIECES = st.sampled_from(
    ["data:", "image/png", ";base64", ",", ";", "=", "AAAA", "%41", " ", "\n", "é", "charset=x"]
)


@quickly
@given(url=st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=40))
def test_any_data_uri(tmp_path: Path, url: str) -> None:
    settings = WorkerSettings(_env_file=None, data_dir=tmp_path, max_image_bytes=10)
    url = "data:" + url
    try:
        data = read_source(url, "image_url", settings, Storage(FolderObjects(tmp_path)))
    except FetchError as error:
        check_sentence(str(error), "image_url: ")
    else:
        assert len(data) <= 12
        assert base64.b64encode(data).decode() == url.partition(",")[2]


def _checkpoints() -> list[bytes]:
    tensors = {
        "__metadata__": {"format": "pt"},
        "layers.0.attention.to_q.lora_A.weight": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
    }
    made = []
    for changed in (tensors, {}, {"a": tensors["b"]}):
        header = json.dumps(changed).encode()
        made.append(len(header).to_bytes(8, "little") + header + bytes(16))
    return made


@quickly
@given(data=damaged(_checkpoints()) | st.binary(max_size=200))
def test_any_safetensors_header(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    try:
        header = read_header(path)
    except CheckpointError as error:
        check_sentence(str(error), "a.safetensors ")
    else:
        assert kind(header) in ("controlnet", "lora", "transformer", "unknown")


def test_header_that_opens_brackets_for_ever_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = b"[" * 200_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError):
        read_header(path)
