"""The header of a safetensors file: reading, checking, judging and writing it without any weight.

The format: 8 bytes of header length (little endian), that many bytes of JSON, then the tensors' bytes, which
the header's `data_offsets` must cover from end to end. https://huggingface.co/docs/safetensors
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from models.errors import CheckpointError

LENGTH_BYTES = 8
ALIGNMENT = 64
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 20_000
MAX_RANK = 8

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of one element, by the format's own names of data types."""

INPAINT_CHANNELS = 33
"""The channels that ControlNet-Union 2.x takes: 16 of the control map, 1 mask, 16 of a picture to be redrawn;
1.0 takes the first 16 alone."""
PATCH = 4
"""Latents that make one token."""

Kind = Literal["controlnet", "lora", "transformer", "unknown"]

_LORA_KEY = re.compile(
    r"\blora[._]?(A|B|up|down|mid)\b|\b(lokr|hada|oft|boft|glora)_\w+$|\bdora_scale$|\bdiff(_b)?$"
)
_BLOCK_KEY = re.compile(r"(?:^|\.)layers\.0\.(attention|feed_forward)\.")
_EMBEDDER_KEY = re.compile(r"(?:^|\.)(all_)?x_embedder\.")


class TensorInfo(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    """The format's own name of the data type: `F32`, `BF16`, `F8_E4M3`, …"""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the file's beginning to the tensor's own."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The checked header of the file at `path`; raises CheckpointError, which names the file only."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > size - LENGTH_BYTES or length < 2:
                raise _fault(path, "is not a safetensors file, or is cut short")
            if length > MAX_HEADER_BYTES:
                raise _fault(path, f"has a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
            text = file.read(length)
    except OSError as error:
        raise _fault(path, f"cannot be read ({error.strerror})") from None
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _fault(
            path, "is not a safetensors file: its header is no JSON object with unique keys"
        ) from None
    if not isinstance(header, dict):
        raise _fault(path, "is not a safetensors file: its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _fault(path, "has metadata that is not text")
    try:
        "".join((*header, *metadata, *metadata.values())).encode()
    except UnicodeEncodeError:
        # As the format's own reader does; no answer of ours could hold such a text.
        raise _fault(path, "has half a character in its names or metadata") from None
    if len(header) > MAX_TENSORS:
        raise _fault(path, f"holds {len(header):,} tensors; at most {MAX_TENSORS:,} are read")
    return Header(_tensors(path, header, LENGTH_BYTES + length, size), metadata)


def header_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """What a file begins with that holds tensors of these data types and shapes, one after the other."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    # The tensors begin where a line of the processor's cache does.
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def knows_masks(header: Header) -> bool:
    """Whether a control checkpoint takes a mask beside the control map, and a picture to be redrawn in it."""
    embedder = header.tensors.get("control_all_x_embedder.2-1.weight")
    return embedder is not None and embedder.shape[1:] == (PATCH * INPAINT_CHANNELS,)


def kind(header: Header) -> Kind:
    """What a checkpoint is, by its keys alone."""
    names = header.tensors
    # A LoRA for the control branch has both kinds of key, and is a LoRA.
    if any(_LORA_KEY.search(name) for name in names):
        return "lora"
    if any(name.startswith("control_layers.") for name in names):
        return "controlnet"
    if any(_BLOCK_KEY.search(name) for name in names) and any(_EMBEDDER_KEY.search(name) for name in names):
        return "transformer"
    return "unknown"


def _tensors(path: Path, header: dict[str, Any], data_begin: int, size: int) -> dict[str, TensorInfo]:
    """Every entry checked, and together they fill the file: no gap, no overlap, nothing beyond its end."""
    data_bytes = size - data_begin
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
                dtype in BITS
                and len(shape) <= MAX_RANK
                and all(_is_size(value, data_bytes) for value in (*shape, begin, end))
                and math.prod(shape) * BITS[dtype] == (end - begin) * 8
            ):
                tensors[name] = TensorInfo(dtype, tuple(shape), data_begin + begin)
                spans.append((begin, end))
            case _:
                raise _fault(path, f"has a faulty entry for the tensor {name[:100]!a}")
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise _fault(path, "has tensors that overlap or leave gaps")
        position = end
    if position != data_bytes:
        raise _fault(path, f"holds {data_bytes:,} bytes of weights where its header says {position:,}")
    return tensors


def _is_size(value: object, data_bytes: int) -> bool:
    # bool is an int to Python; an element takes at least half a byte.
    return type(value) is int and 0 <= value <= max(2 * data_bytes, 2**32)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _fault(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path.name} {reason}.")
