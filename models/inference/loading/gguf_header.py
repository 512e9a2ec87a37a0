"""The header of a GGUF file: which tensors there are, and where. Its vocabulary is stepped over.

The `gguf` package's own reader makes objects of every word of it, which takes seconds for a text encoder.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
ALIGNMENT = 32
"""Of the tensors' bytes, unless the file says another."""
KEPT = 8
"""Headers that are remembered: planning, loading and telling what to expect each ask for them."""

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Of a value, by the format's numbers of types."""


class GgufTensor(NamedTuple):
    """What a header says of one tensor."""

    block: "GGMLQuantizationType"
    shape: tuple[int, ...]
    """The slowest dimension first, as torch has it; the file has it the other way round."""
    offset: int
    """Bytes from the file's beginning."""
    row_bytes: int
    """Of the last dimension, which is whole blocks."""


def read_tensors(path: Path) -> dict[str, GgufTensor]:
    """The tensors by their names. Raises OSError, and ValueError for a file that is not sound."""
    stat = path.stat()
    return _read_tensors(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(KEPT)
def _read_tensors(path: Path, mtime_ns: int, size: int) -> dict[str, GgufTensor]:
    """`mtime_ns` tells a file from one that took its place."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return _Header(data).tensors(size)
    except (struct.error, OverflowError):
        raise ValueError("it is cut off") from None


class _Header:
    def __init__(self, data: mmap) -> None:
        self._data = data
        self._at = 0

    def tensors(self, size: int) -> dict[str, GgufTensor]:
        if self._data[: len(MAGIC)] != MAGIC:
            raise ValueError("it does not begin as one")
        self._at = len(MAGIC)
        if (version := self._number(_U32)) not in VERSIONS:
            raise ValueError(f"version {version} is not known")
        count, values = self._number(_U64), self._number(_U64)
        alignment = ALIGNMENT
        for _ in range(values):
            key, kind = self._text(), self._number(_U32)
            if key == b"general.alignment" and kind == 4:
                (alignment,) = _U32.unpack_from(self._data, self._at)
            self._step_over(kind)
        if alignment < 1:
            raise ValueError("its alignment is 0")
        found = [self._tensor() for _ in range(count)]
        begin = math.ceil(self._at / alignment) * alignment
        tensors = {name: tensor._replace(offset=begin + tensor.offset) for name, tensor in found}
        if len(tensors) < len(found):
            raise ValueError("two tensors have one name")
        for tensor in tensors.values():
            if tensor.offset + math.prod(tensor.shape[:-1]) * tensor.row_bytes > size:
                raise ValueError("it is cut off")
        return tensors

    def _tensor(self) -> tuple[str, GgufTensor]:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name, dimensions = self._text().decode(), self._number(_U32)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = tuple(self._number(_U64) for _ in range(dimensions))[::-1]
        block = GGMLQuantizationType(self._number(_U32))
        values, length = GGML_QUANT_SIZES[block]
        if shape[-1] % values:
            raise ValueError(f"rows of {name} are no whole blocks")
        return name, GgufTensor(block, shape, self._number(_U64), shape[-1] // values * length)

    def _number(self, form: struct.Struct) -> int:
        (number,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return int(number)

    def _text(self) -> bytes:
        length = self._number(_U64)
        self._at += length
        return self._data[self._at - length : self._at]

    def _step_over(self, kind: int) -> None:
        """A value of this kind."""
        count = 1
        if kind == _ARRAY:
            kind, count = self._number(_U32), self._number(_U64)
        if kind == _STRING:
            data, at, read = self._data, self._at, _U64.unpack_from
            for _ in range(count):
                at += 8 + read(data, at)[0]
            self._at = at
        elif kind in _BYTES:
            self._at += count * _BYTES[kind]
        else:
            raise ValueError(f"a value is of type {kind}, which is not known")
