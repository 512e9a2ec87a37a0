"""Bytes that outlive a process, by key: finished pictures, uploads, what a request needs on its way.

One protocol, two backends: a local folder (`worker.storage.folder`), for one machine, and any S3-compatible
store (`worker.storage.s3`), which several machines share. A key is the same in both, so one is copied to the
other file by file.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

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

    def spare_bytes(self) -> int | None:
        """What callers may still send, above the floor of free disk; None: there is no end to it."""


@runtime_checkable
class SharedObjects(Objects, Protocol):
    """Objects that several machines reach: files of gigabytes, too, go from one to the other through them."""

    def send_file(self, key: str, path: Path, fresh_seconds: float) -> None:
        """Keeps a file, unless it is there already and younger than that."""

    def fetch_file(self, key: str, path: Path, keep_going: Callable[[], None]) -> bool:
        """Writes what is under `key` to `path`; False when there is nothing.

        What `keep_going` raises stops it. Raises OSError too, for this machine's disk.
        """


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
