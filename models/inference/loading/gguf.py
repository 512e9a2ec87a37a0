"""The tensors of a GGUF file, each dequantized to float32 when it is asked for.

A model from such a file takes LoRAs like any other. The arithmetic of the block types is that of the `gguf`
package, which the extra `gguf` installs.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.command import install
from models.errors import CheckpointError
from models.inference.loading.gguf_header import read_tensors
from models.inference.loading.tensors import Shapes

SUFFIX = ".gguf"
VALUES_AT_ONCE = 2**24
"""The package takes several times the memory of what it dequantizes, and a table of words is large."""


class GgufFile:
    """A GGUF file as a `Source` of tensors. Raises `CheckpointError` for a file that is not sound."""

    mapped = False

    def __init__(self, path: Path) -> None:
        try:
            from gguf import dequantize
        except ImportError:
            raise CheckpointError(
                f"{path.name} is a GGUF file, and reading it takes one more package: "
                f"`{install('gguf')}` brings it."
            ) from None
        self._path = path
        self._dequantize = dequantize
        try:
            self._tensors = read_tensors(path)
            self._data = np.memmap(path, mode="r")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path.name} is no sound GGUF file: {error}.") from error

    def shapes(self) -> Shapes:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """One tensor in float32; raises `CheckpointError` for a block type that the package cannot read."""
        block, shape, offset, row_bytes = self._tensors[name]
        values = torch.empty(shape, dtype=torch.float32)
        rows = values.view(-1, shape[-1])
        stored = self._data[offset : offset + len(rows) * row_bytes].reshape(len(rows), row_bytes)
        step = max(VALUES_AT_ONCE // shape[-1], 1)
        try:
            for first in range(0, len(rows), step):
                part = self._dequantize(stored[first : first + step], block)
                rows[first : first + step] = torch.tensor(part, dtype=torch.float32)
        except NotImplementedError:
            raise CheckpointError(
                f"{self._path.name} stores {name} as {block.name}: not supported."
            ) from None
        return values


def qwen3_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """A table from llama.cpp's names of the text encoder's tensors to transformers', which are `names`."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    table = get_tensor_name_map(MODEL_ARCH.QWEN3, layers)
    theirs = {name: table.get_name(name, try_suffixes=(".weight",)) for name in names}
    return {stored: name for name, stored in theirs.items() if stored}
