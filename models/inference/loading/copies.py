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
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch

from models.disk import spare_bytes
from models.duration import duration
from models.errors import CheckpointError, DiskFull
from models.in_use import delete_unheld, hold, is_held
from models.inference.denoise.rounding import EightBits
from models.inference.loading.single_file import are_stored_in
from models.inference.loading.tensors import DTYPES, Copy, Layout, Source, Weights
from models.weights.header import header_bytes, read_header

WORTHWHILE_BYTES = 2**30
"""The least size of a checkpoint that is copied; smaller ones load fast enough as they are."""
SPARE_BYTES = 4 * 10**9
"""What a copy leaves on the disk above the floor of `models.disk`."""
COPIED_BYTES = 1.6e8
"""A second, of a copy: the published model's three in 8 bits, 12.5 GB, took 76 s with all else of a start."""
HEAD_BYTES = 2**20
"""A file is known by its size, its time and a hash of so many bytes, in which its header stands."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""The format's names of data types."""

OnBytes = Callable[[int, int], None]
"""Told how many bytes of a copy are written, and how many it will have."""

log = logging.getLogger(__name__)


class Copies:
    """The copies in one folder, which take `max_bytes` at most; several processes may use it.

    Those that no process uses make room for others, the longest unused first.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = 2**62,
        on_bytes: OnBytes | None = None,
        checkpoints: Sequence[Sequence[Path]] = (),
    ) -> None:
        """`checkpoints` are those of one model, whose copies make no room for each other.

        Without `on_bytes` the log tells how far a copy is.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._on_bytes = on_bytes
        self._prefixes = tuple(_prefix(_fingerprint(files)) for files in checkpoints)
        self._held: list[int] = []
        weakref.finalize(self, _close, self._held)
        self._has_failed = False
        self.are_counted_on = False
        """Whether what is not copied has no room in memory: `kept` raises `DiskFull` then."""

    def lacks(self, size: int) -> str | None:
        """What to do so that copies of so many bytes in all, with those that are there, have room.

        None where they have it: then `kept` writes them, unless the disk fills up meanwhile.
        """
        most, room = self._bounds()
        missing = size - room
        to_do = []
        if size > most:
            to_do.append(f"set ZTURBO_MAX_CACHE_BYTES={size + self._max_bytes - most}")
        if missing > 0:
            # Rounded up, else it would be a little too few.
            wanted = math.ceil(missing / 1e8) / 10
            to_do.append(f"free {wanted} GB on the disk of {self._folder} for copies of the weights")
        return " and ".join(to_do) or None

    def room(self) -> int:
        """Bytes that copies may take in all, with those that are there."""
        return max(0, min(self._bounds()))

    def missing(self, size: int) -> int:
        """Bytes still to be written until the model has copies of so many in all."""
        there = self._there().items()
        return max(0, size - sum(here for path, here in there if path.name.startswith(self._prefixes)))

    def _bounds(self) -> tuple[int, int]:
        """The same by the quota, and by the disk."""
        most, room = self._max_bytes, spare_bytes(self._folder) - SPARE_BYTES
        for path, size in self._there().items():
            # What another process has of this model is there for this one.
            if path.name.startswith(self._prefixes) or not is_held(path):
                room += size
            else:
                most -= size
        return most, 0 if self._has_failed else room

    def give_up(self) -> None:
        """There is no room after all: nothing is written any more, and nothing counted on."""
        self._has_failed, self.are_counted_on = True, False

    def kept(self, files: Sequence[Path], form: str, weights: Source, layout: Layout) -> Path | None:
        """The copy of `files`, made now if need be; None where they are small or there can be none.

        `weights` has the tensors of the copy, whose `layout` is known; `form` is its name. Raises `DiskFull`
        where there can be none and it is counted on.
        """
        if sum(path.stat().st_size for path in files) < WORTHWHILE_BYTES:
            return None
        made_from = _fingerprint(files)
        path = self._folder / f"{_prefix(made_from)}{form}.safetensors"
        size = sum(torch.Size(shape).numel() * dtype.itemsize for dtype, shape in layout.values())
        reason: str | None = "no room"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not _is_sound(path, made_from, layout):
                    path.unlink(missing_ok=True)
                    if self._make_room(size, form):
                        log.info(
                            "writing a copy (%s) of %s for later starts, once: %.1f GB, about %s",
                            *(form, files[0].parent, size / 1e9, duration(size / COPIED_BYTES)),
                        )
                        self._write(path, weights, layout, made_from, size)
                if path.exists():
                    self._use(path)
                    return path
        except OSError as error:
            reason = error.strerror
        refusal = (
            f"A copy ({form}) of {files[0].parent}, of {size / 1e9:.1f} GB, cannot be kept in "
            f"{self._folder}: {reason}"
        )
        if self.are_counted_on:
            raise DiskFull(f"{refusal}; make room there or try again later.")
        log.warning("%s", refusal)
        return None

    def _there(self) -> dict[Path, int]:
        """The copies, the longest unused first, with their bytes."""
        copies = {}
        for path in self._folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                copies[path] = path.stat()
        return {path: stat.st_size for path, stat in sorted(copies.items(), key=lambda at: at[1].st_atime)}

    def _make_room(self, size: int, form: str) -> bool:
        """Delete old copies until a new one has room; False, with none deleted, where that is not enough."""
        there = self._there()
        needed = {f"{prefix}{form}.safetensors" for prefix in self._prefixes}
        old = {path: there[path] for path in there if path.name not in needed and not is_held(path)}
        # A few GB were promised to nobody: what is counted on may take them.
        margin = 0 if self.are_counted_on else SPARE_BYTES
        missing = size + max(margin - spare_bytes(self._folder), sum(there.values()) - self._max_bytes)
        if self._has_failed or missing > sum(old.values()):
            return False
        for path, freed in old.items():
            if missing <= 0:
                break
            if delete_unheld(path):
                log.info("%s makes room for another copy", path)
                missing -= freed
        return missing <= 0

    def _write(self, path: Path, weights: Source, layout: Layout, made_from: str, size: int) -> None:
        # To the second, as every file system keeps it.
        written_at = int(time.time()) * 10**9
        metadata, done, told = {"made_from": made_from, "written_at": str(written_at)}, 0, 0
        began = time.monotonic()
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
                    left = duration((time.monotonic() - began) * (size - done) / done)
                    log.info("%d %% of %.1f GB are written, about %s left", 10 * tenths, size / 1e9, left)
            file.flush()
            os.fsync(file.fileno())
            os.utime(file.fileno(), ns=(written_at, written_at))

    def _use(self, path: Path) -> None:
        """The quota of the caches goes by the time of access, and spares what is held."""
        self._held.append(hold(path))
        with suppress(PermissionError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

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


def own_copy(
    files: Sequence[Path], dtype: torch.dtype, copies: Copies, eight_bits: EightBits | None
) -> Copy | None:
    """What puts a copy in place of weights that are not used as they lie in `files`; None where they are.

    With `eight_bits` matrices are rounded, and the rest has `dtype`; in float16 some are made smaller; in
    bfloat16 it is for files in another type, such as the published transformer's 24.6 GB of float32.
    """
    is_changed = eight_bits or dtype == torch.float16
    if not is_changed and (dtype != torch.bfloat16 or are_stored_in(files, dtype)):
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


def _prefix(made_from: str) -> str:
    """What the names of copies begin with that were made from these files."""
    return f"{made_from[:16]}-"


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


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
