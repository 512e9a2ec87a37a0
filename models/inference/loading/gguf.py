"""The tensors of a GGUF file, each dequantized to float32 when it is asked for.

A model from such a file takes LoRAs like any other. The reader and the arithmetic of the block types are the
`gguf` package's, which the extra `gguf` installs.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from models.command import install
from models.errors import CheckpointError
from models.inference.loading.tensors import Shapes

SUFFIX = ".gguf"
VALUES_AT_ONCE = 2**24
"""The package takes several times the memory of what it dequantizes, and a table of words is large."""


class GgufFile:
    """A GGUF file as a `Source` of tensors. Raises `CheckpointError` for a file that is not sound."""

    mapped = False

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader, dequantize
        except ImportError:
            raise CheckpointError(
                f"{path.name} is a GGUF file, and reading it takes one more package: "
                f"`{install('gguf')}` brings it."
            ) from None
        self._path = path
        self._dequantize = dequantize
        try:
            tensors = GGUFReader(path).tensors
        except (OSError, ValueError, LookupError) as error:
            raise CheckpointError(f"{path.name} is no sound GGUF file: {error}.") from error
        self._tensors = {tensor.name: tensor for tensor in tensors}

    def shapes(self) -> Shapes:
        # The format counts from the fastest dimension.
        return {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> Tensor:
        """One tensor in float32; raises `CheckpointError` for a block type that the package cannot read."""
        tensor = self._tensors[name]
        shape = tuple(int(size) for size in reversed(tensor.shape))
        values = torch.empty(shape, dtype=torch.float32)
        rows = values.view(shape[0], -1)
        step = max(VALUES_AT_ONCE // rows.shape[1], 1)
        try:
            for first in range(0, len(rows), step):
                part = self._dequantize(tensor.data[first : first + step], tensor.tensor_type)
                rows[first : first + step] = torch.tensor(part, dtype=torch.float32).view(-1, rows.shape[1])
        except NotImplementedError:
            raise CheckpointError(
                f"{self._path.name} stores {name} as {tensor.tensor_type.name}: not supported."
            ) from None
        return values


def qwen3_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """A table from llama.cpp's names of the text encoder's tensors to transformers', which are `names`."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    table = get_tensor_name_map(MODEL_ARCH.QWEN3, layers)
    theirs = {name: table.get_name(name, try_suffixes=(".weight",)) for name in names}
    return {stored: name for name, stored in theirs.items() if stored}
