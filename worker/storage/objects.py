"""Where bytes are kept that outlive a process: finished pictures, uploads, what a request needs on its way.

One protocol, two backends: a local folder, for one machine, and any S3-compatible store
(`worker.storage.s3`), which several machines share. A key is the same in both, so one is
copied to the other file by file.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from models import disk
from worker.config import WorkerSettings
from worker.errors import StorageError

PART_SECONDS = 3600.0
"""Nobody writes one file for so long: what is unfinished then was left by a process that died."""


class Entry(NamedTuple):
    key: str
    modified_at: float
    """Unix seconds."""


class Objects(Protocol):
    """Bytes by key: words of our own making with slashes between. Every method raises StorageError."""

    def put(self, key: str, data: bytes) -> None:
        """Keeps `data`, wholly or not at all, and returns once it is safe."""

    def get(self, key: str) -> bytes | None:
        """None when there is nothing under this key."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Everything below the folder `prefix`, and what was never finished there, ending in `.part`."""

    def delete(self, keys: Iterable[str]) -> None:
        """What is not there is no fault."""

    def check_room(self, size: int) -> None:
        """Raises DiskFull when a disk of this machine has no room for `size` bytes that a caller sends."""


@runtime_checkable
class SharedObjects(Objects, Protocol):
    """Objects that several machines reach: files of gigabytes, too, go from one to the other through them."""

    def send_file(self, key: str, path: Path, fresh_seconds: float) -> None:
        """Keeps a file, unless it is there already and younger than that."""

    def fetch_file(self, key: str, path: Path, keep_going: Callable[[], None]) -> bool:
        """Writes what is under `key` to `path`; False when there is nothing.

        What `keep_going` raises stops it. Raises OSError too, for this machine's disk.
        """


def open_objects(settings: WorkerSettings, patience_seconds: float = 0) -> Objects:
    """The backend that the settings choose; `patience_seconds`: how long to wait for one that is away.

    Raises SetupError when its package is not installed.
    """
    if not settings.storage:
        return FolderObjects(settings.data_dir)
    from worker.storage.s3 import S3Objects

    return S3Objects(settings.storage, patience_seconds)


def sweep(objects: Objects, folder: str, max_age_seconds: float) -> int:
    """Deletes what is older, referenced or not, and what was never finished; returns how many keys."""
    now = time.time()
    old = []
    for key, modified_at in objects.list(folder):
        longest = min(PART_SECONDS, max_age_seconds) if key.endswith(".part") else max_age_seconds
        if now - modified_at > longest:
            old.append(key)
    objects.delete(old)
    return len(old)


class FolderObjects:
    """Each key is a file's path below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> None:
        path = self._root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            with suppress(OSError):
                path.parent.rmdir()
            raise _fault("kept", error) from error

    def get(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault("read", error) from error

    def list(self, prefix: str) -> Iterator[Entry]:
        for folder, _, names in os.walk(self._root / prefix):
            for name in names:
                path = Path(folder, name)
                # Another process may be sweeping too.
                with suppress(FileNotFoundError):
                    yield Entry(path.relative_to(self._root).as_posix(), path.stat().st_mtime)

    def delete(self, keys: Iterable[str]) -> None:
        for path in (self._root / key for key in keys):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _fault("deleted", error) from error
            with suppress(OSError):
                path.parent.rmdir()

    def check_room(self, size: int) -> None:
        disk.check_room(self._root, size)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that whoever sees its name sees all of it, also after a power cut."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _fault(what: str, error: OSError) -> StorageError:
    # Without the path: the caller reads this.
    return StorageError(f"The request's data could not be {what} on this server: {error.strerror}.")
