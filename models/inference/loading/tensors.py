"""Weights from safetensors files for a model on the meta device, one tensor at a time.

Shapes are compared before any weight is read, and each tensor is cast on its way: loading needs no more host
memory than the model itself and one tensor. Mapped, a tensor is a view of its file, whose pages the system
reads when they are used and drops when it needs the room: it takes no memory of the process's own.
"""

import math
import mmap
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.inference.denoise.int8 import RoundedLinear
from models.weights.header import TensorInfo, read_header

MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
"""A flag of mmap that Python of this version has no name for."""
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

    mapped: bool
    """True where a tensor that is read may be a view of its file."""

    def shapes(self) -> Shapes: ...

    def read(self, name: str) -> Tensor: ...


Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Data type and shape of each tensor."""
Copy = Callable[[Source, Layout], Source]
"""Another source of the same tensors, or the same source."""


class Place(NamedTuple):
    """The place in a file where one tensor is stored."""

    path: Path
    key: str
    info: TensorInfo


class Weights:
    """The tensors of one or several safetensors files, as they are stored.

    `prefix` selects the tensors whose names start with it, and is cut off. `mapped`: they are views of the
    files, and what is written into one stays in this process. Raises `CheckpointError` for a file whose
    header is not sound.
    """

    def __init__(self, files: Iterable[Path], prefix: str = "", *, mapped: bool = False) -> None:
        self.mapped = mapped
        self.places: dict[str, Place] = {}
        self._mappings: dict[Path, mmap.mmap] = {}
        for path in files:
            for key, info in read_header(path).tensors.items():
                if key.startswith(prefix):
                    self.places[key.removeprefix(prefix)] = Place(path, key, info)

    def shapes(self) -> Shapes:
        return {name: place.info.shape for name, place in self.places.items()}

    def read(self, name: str) -> Tensor:
        """One tensor: in memory of its own, or mapped."""
        path, key, info = self.places[name]
        if info.dtype not in DTYPES:
            raise CheckpointError(f"{path.name} stores {key} as {info.dtype}: not supported.")
        dtype = DTYPES[info.dtype]
        count: int = math.prod(info.shape)
        # A file may be written without regard to where numbers of more than a byte should begin.
        if self.mapped and count and not info.offset % dtype.itemsize:
            numbers = torch.frombuffer(self._mapping(path), dtype=dtype, count=count, offset=info.offset)
            return numbers.view(info.shape)
        tensor = torch.empty(info.shape, dtype=dtype)
        if tensor.numel():
            with path.open("rb") as file:
                file.seek(info.offset)
                file.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return tensor

    def _mapping(self, path: Path) -> mmap.mmap:
        if path not in self._mappings:
            with path.open("rb") as file:
                # Private, so that a write makes a copy of the page; not reserved, as hardly any is written.
                flags, access = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
                self._mappings[path] = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
        return self._mappings[path]


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
    copy: Copy | None = None,
) -> Model:
    """Give every parameter of a meta model its tensor, cast to `dtype` on `device`; the model, frozen.

    What belongs to a layer in 8 bits keeps its type: `weights` has its numbers and scales. `copy`, if given,
    may put another source in the place of `weights`, which are known to fit by then.

    Names that start with one of `unused` stay in the file. Raises `CheckpointError`, naming `source`, when a
    tensor is missing, has no place in the model, or has another shape.
    """
    have = {name: shape for name, shape in weights.shapes().items() if not name.startswith(unused)}
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for owner, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            kept = parameter.dtype if isinstance(module, RoundedLinear) else dtype
            layout[f"{owner}.{leaf}" if owner else leaf] = kept, tuple(parameter.shape)
    want = {name: shape for name, (_, shape) in layout.items()}
    # A GGUF file may have no dimensions of one.
    have |= {name: want[name] for name in have.keys() & want.keys() if _bare(have[name]) == _bare(want[name])}
    check_shapes(have, want, source)
    weights = copy(weights, layout) if copy else weights
    for name, (kept, shape) in layout.items():
        owner, _, leaf = name.rpartition(".")
        tensor = weights.read(name).view(shape).to(device=device, dtype=kept)
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    return model.eval()


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


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
