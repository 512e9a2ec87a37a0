"""Copies of weights in fewer bits, written once and read, or mapped, at every later start.

A copy is there whole or not at all. It tells which files it was made from and when it was written; where
these, its size or its time are not as it says, it is made anew. A process that is killed over it leaves
nothing.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch

from models.disk import spare_bytes
from models.errors import CheckpointError
from models.inference.denoise.rounding import EightBits
from models.inference.loading.tensors import DTYPES, Copy, Layout, Source, Weights
from models.weights.header import header_bytes, read_header

WORTHWHILE_BYTES = 2**30
"""The least size of a checkpoint that is copied; smaller ones load fast enough as they are."""
SPARE_BYTES = 4 * 10**9
"""What a copy leaves on the disk above the floor of `models.disk`."""
HEAD_BYTES = 2**20
"""A file is known by its size, its time and a hash of so many bytes, in which its header stands."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""The format's names of data types."""

OnBytes = Callable[[int, int], None]
"""Told how many bytes of a copy are written, and how many it will have."""

log = logging.getLogger(__name__)


class Copies:
    """The copies in one folder, which take `max_bytes` at most; several processes may use it."""

    def __init__(self, folder: Path, max_bytes: int = 2**62, on_bytes: OnBytes | None = None) -> None:
        """Without `on_bytes` the log tells how far a copy is."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._on_bytes = on_bytes
        self._used: list[Path] = []

    def lacks(self, size: int) -> str | None:
        """What to do so that copies of so many bytes in all, with those that are there, have room.

        None where they have it.
        """
        missing = size - self._on_disk()
        to_do = []
        if size > self._max_bytes:
            to_do.append(f"set ZTURBO_MAX_CACHE_BYTES={size}")
        if missing > 0:
            # Rounded up, else it would be a little too few.
            wanted = math.ceil(missing / 1e8) / 10
            to_do.append(f"free {wanted} GB on the disk of {self._folder} for copies of the weights")
        return " and ".join(to_do) or None

    def room(self) -> int:
        """Bytes that copies may take in all, with those that are there."""
        return min(self._max_bytes, self._on_disk())

    def missing(self, size: int) -> int:
        """Bytes still to be written until there are so many in all."""
        return max(0, size - sum(path.stat().st_size for path in self._folder.glob("*.safetensors")))

    def _on_disk(self) -> int:
        here = sum(path.stat().st_size for path in self._folder.glob("*.safetensors"))
        return spare_bytes(self._folder) - SPARE_BYTES + here

    def kept(self, files: Sequence[Path], form: str, weights: Source, layout: Layout) -> Path | None:
        """The copy of `files`, made now if need be; None where they are small or there can be none.

        `weights` has the tensors of the copy, whose `layout` is known; `form` is its name.
        """
        if sum(path.stat().st_size for path in files) < WORTHWHILE_BYTES:
            return None
        made_from = _fingerprint(files)
        path = self._folder / f"{made_from[:16]}-{form}.safetensors"
        size = sum(torch.Size(shape).numel() * dtype.itemsize for dtype, shape in layout.values())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not _is_sound(path, made_from, layout):
                    path.unlink(missing_ok=True)
                    if size > min(self._max_bytes, spare_bytes(self._folder) - SPARE_BYTES):
                        log.warning(
                            "no room in %s for a copy (%s) of %s", self._folder, form, files[0].parent
                        )
                        return None
                    log.info("keeping a copy (%s) of %s for the next start", form, files[0].parent)
                    self._write(path, weights, layout, made_from, size)
        except OSError as error:
            reason = error.strerror
            log.warning("no copy (%s) of %s is kept in %s: %s", form, files[0].parent, self._folder, reason)
            return None
        self._use(path)
        return path

    def _write(self, path: Path, weights: Source, layout: Layout, made_from: str, size: int) -> None:
        # To the second, as every file system keeps it.
        written_at = int(time.time()) * 10**9
        metadata, done, told = {"made_from": made_from, "written_at": str(written_at)}, 0, 0
        with _whole(path) as file:
            shapes = {name: (NAMES[dtype], shape) for name, (dtype, shape) in layout.items()}
            file.write(header_bytes(shapes, metadata))
            for name, (dtype, _) in layout.items():
                tensor = weights.read(name).to(dtype).contiguous()
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
                done += tensor.nbytes
                if self._on_bytes:
                    self._on_bytes(done, size)
                elif (tenths := 10 * done // size) > told:
                    told = tenths
                    log.info("%d %% of %.1f GB are written", 10 * tenths, size / 1e9)
            file.flush()
            os.fsync(file.fileno())
            os.utime(file.fileno(), ns=(written_at, written_at))

    def _use(self, path: Path) -> None:
        """All that this process uses were used now: the quota of the caches goes by the time of access."""
        self._used.append(path)
        for used in self._used:
            with suppress(OSError):
                os.utime(used, ns=(time.time_ns(), used.stat().st_mtime_ns))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block no other process writes here; what one left that was killed is cleared away."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for draft in self._folder.glob(".draft-*"):
                draft.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)


def half_copy(files: Sequence[Path], dtype: torch.dtype, copies: Copies) -> list[Path]:
    """The files to load instead of float32 ones: a copy in bfloat16, or `files` where `dtype` is another.

    The published transformer is stored as 24.6 GB of float32 and run as 12.3 GB of bfloat16.
    """
    weights = Weights(files)
    stored = {place.info.dtype for place in weights.places.values()}
    if dtype != torch.bfloat16 or stored != {"F32"}:
        return list(files)
    layout = {name: (dtype, shape) for name, shape in weights.shapes().items()}
    copy = copies.kept(files, NAMES[dtype].lower(), weights, layout)
    return [copy] if copy else list(files)


def own_copy(
    files: Sequence[Path], dtype: torch.dtype, copies: Copies, eight_bits: EightBits | None
) -> Copy | None:
    """What puts a copy in place of weights that a model changes as it takes them; None where it does not.

    With `eight_bits` its matrices are rounded, and the rest has `dtype`; in float16 some are made smaller.
    """
    if not eight_bits and dtype != torch.float16:
        return None
    form = "shrunk-f16" if dtype == torch.float16 else NAMES[dtype].lower()

    def copy(weights: Source, layout: Layout) -> Source:
        path = copies.kept(files, f"{eight_bits}-{form}" if eight_bits else form, weights, layout)
        return Weights([path], mapped=True) if path else weights

    return copy


def _fingerprint(files: Sequence[Path]) -> str:
    """A hash that changes when one of the files does."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            digest.update(json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns]).encode())
            digest.update(file.read(HEAD_BYTES))
    return digest.hexdigest()


def _is_sound(path: Path, made_from: str, layout: Layout) -> bool:
    """Whether the copy was made from these files and is as it was written."""
    try:
        header = read_header(path)
        written_at = str(path.stat().st_mtime_ns)
    except (CheckpointError, OSError):
        return False
    told = header.metadata.get("made_from"), header.metadata.get("written_at")
    stored = {name: (info.dtype, info.shape) for name, info in header.tensors.items()}
    wanted = {name: (NAMES[dtype], shape) for name, (dtype, shape) in layout.items()}
    return told == (made_from, written_at) and stored == wanted


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` when the block ends well; nothing stays of one that does not.

    Where the system can, it has no name until then, so that it goes with a process that is killed.
    """
    try:
        descriptor, draft = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o644), None
    except (AttributeError, OSError):
        descriptor, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if draft is None:
                # By a folder's descriptor: else it would be a link to the link in /proc.
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=folder, follow_symlinks=True)
                finally:
                    os.close(folder)
            else:
                Path(draft).rename(path)
    finally:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)
