"""The tensors of a GGUF file, each dequantized to float32 when it is asked for.

Nothing stays quantized: a model from such a file takes the memory of any other, and LoRAs like any other. The
reader and the arithmetic of the block types are the `gguf` package's, which the extra `gguf` installs.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from models.command import install
from models.errors import CheckpointError
from models.inference.loading.tensors import Shapes

SUFFIX = ".gguf"


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
        try:
            values = self._dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise CheckpointError(
                f"{self._path.name} stores {name} as {tensor.tensor_type.name}: not supported."
            ) from None
        return torch.tensor(values, dtype=torch.float32)


def qwen3_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """A table from llama.cpp's names of the text encoder's tensors to transformers', which are `names`."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    table = get_tensor_name_map(MODEL_ARCH.QWEN3, layers)
    theirs = {name: table.get_name(name, try_suffixes=(".weight",)) for name in names}
    return {stored: name for name, stored in theirs.items() if stored}
