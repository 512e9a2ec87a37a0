"""Weights read from safetensors files into a model on the meta device, one tensor at a time.

Shapes are compared before any weight is read, and each tensor is cast on its way. Files are read, not mapped:
loading needs no more host memory than the model itself and one tensor.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.inference.denoise.int8 import Int8Linear, round_rows
from models.weights.header import TensorInfo, read_header

NAMES_SHOWN = 3
"""Tensor names that an error message lists before it only counts."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "I8": torch.int8,
    "BOOL": torch.bool,
}
"""The data types that weights are stored in, by the format's names."""

Shapes = dict[str, tuple[int, ...]]
Model = TypeVar("Model", bound=nn.Module)


class Source(Protocol):
    """Named tensors whose shapes are known before they are read."""

    def shapes(self) -> Shapes: ...

    def read(self, name: str) -> Tensor: ...


class Place(NamedTuple):
    """The place in a file where one tensor is stored."""

    path: Path
    key: str
    info: TensorInfo


class Weights:
    """The tensors of one or several safetensors files, as they are stored.

    `prefix` selects the tensors whose names start with it, and is cut off. Raises `CheckpointError` for a
    file whose header is not sound.
    """

    def __init__(self, files: Iterable[Path], prefix: str = "") -> None:
        self.places: dict[str, Place] = {}
        for path in files:
            for key, info in read_header(path).tensors.items():
                if key.startswith(prefix):
                    self.places[key.removeprefix(prefix)] = Place(path, key, info)

    def shapes(self) -> Shapes:
        return {name: place.info.shape for name, place in self.places.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""
        path, key, info = self.places[name]
        if info.dtype not in DTYPES:
            raise CheckpointError(f"{path.name} stores {key} as {info.dtype}: not supported.")
        tensor = torch.empty(info.shape, dtype=DTYPES[info.dtype])
        if tensor.numel():
            with path.open("rb") as file:
                file.seek(info.offset)
                file.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return tensor


def folder_files(folder: Path) -> list[Path]:
    """The safetensors files of a component folder; raises `CheckpointError` when there is none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file.")
    return files


def fill(
    model: Model,
    weights: Source,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    source: str,
    unused: str | tuple[str, ...] = (),
) -> Model:
    """Give every parameter of a meta model its tensor, cast to `dtype` on `device`; the model, frozen.

    One whose layer is in 8 bits is rounded instead.

    Names that start with one of `unused` stay in the file. Raises `CheckpointError`, naming `source`, when a
    tensor is missing, has no place in the model, or has another shape.
    """
    have = {name: shape for name, shape in weights.shapes().items() if not name.startswith(unused)}
    rounded = {name: layer for name, layer in model.named_modules() if isinstance(layer, Int8Linear)}
    scales = {f"{name}.scale" for name in rounded}
    want = {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name not in scales
    }
    check_shapes(have, want, source)
    for name in want:
        owner, _, leaf = name.rpartition(".")
        if owner in rounded:
            rounded[owner].fill(*(part.to(device) for part in round_rows(weights.read(name).float())))
            continue
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
