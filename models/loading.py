"""Weights from safetensors files into a model that was built on the meta device, one tensor at a time.

Shapes are compared before any weight is read, and each tensor is cast on its way, so that loading needs no
more host memory than the model itself and one tensor.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.checkpoint import read_header
from models.errors import CheckpointError

NAMES_SHOWN = 3
"""Tensor names that an error message lists before it only counts."""

Model = TypeVar("Model", bound=nn.Module)


class Weights:
    """The named tensors of one or several safetensors files; a context manager, as the files stay open.

    `prefix` selects the tensors whose names start with it, and is cut off. Raises `CheckpointError` for a
    file whose header is not sound.
    """

    def __init__(self, files: Iterable[Path], prefix: str = "") -> None:
        headers = {path: read_header(path) for path in files}
        self._open = ExitStack()
        self._where: dict[str, tuple[Any, str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path, header in headers.items():
            file = self._open.enter_context(safe_open(path, framework="pt"))
            for key, info in header.tensors.items():
                if key.startswith(prefix):
                    self._where[key.removeprefix(prefix)] = (file, key)
                    self._shapes[key.removeprefix(prefix)] = info.shape

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._shapes)

    def read(self, name: str) -> Tensor:
        file, key = self._where[name]
        tensor: Tensor = file.get_tensor(key)
        return tensor


def folder_files(folder: Path) -> list[Path]:
    """The safetensors files of a component folder; raises `CheckpointError` when there is none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file.")
    return files


def fill(
    model: Model,
    weights: Weights,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    source: str,
    unused: str | None = None,
) -> Model:
    """Give every parameter of a meta model its tensor, cast to `dtype` on `device`; the model, frozen.

    Names that start with `unused` are left in the file. Raises `CheckpointError`, naming `source`, when a
    tensor is missing, has no place in the model, or has another shape.
    """
    have = weights.shapes()
    if unused is not None:
        have = {name: shape for name, shape in have.items() if not name.startswith(unused)}
    want = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    check_shapes(have, want, source)
    for name in want:
        owner, _, leaf = name.rpartition(".")
        tensor = weights.read(name).to(device=device, dtype=dtype)
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    return model.eval()


def check_shapes(
    have: Mapping[str, tuple[int, ...]], want: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Raise `CheckpointError` unless both name the same tensors with the same shapes."""
    faults = [
        *_named("lacks", want.keys() - have.keys()),
        *_named("has no place for", have.keys() - want.keys()),
        *_named(
            "has another shape for",
            {name for name in have.keys() & want.keys() if have[name] != want[name]},
            lambda name: f"{name} {have[name]} instead of {want[name]}",
        ),
    ]
    if faults:
        raise CheckpointError(f"{source} does not fit the model: it {'; '.join(faults)}.")


def _named(fault: str, names: set[str], describe: Callable[[str], str] = str) -> list[str]:
    if not names:
        return []
    shown = ", ".join(describe(name) for name in sorted(names)[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return [f"{fault} {shown}{more}"]
