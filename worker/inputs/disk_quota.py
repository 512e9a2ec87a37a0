"""The disk that LoRAs fetched for callers may take: by URL in DATA_DIR/cache, by hub id in the hub's cache.

Of the hub's cache, which other programs use too, only what a caller's request brought there is ever deleted:
`DATA_DIR/cache/hub` has a note of each such file.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from models.weights.hub import Progress, evict
from worker.errors import StorageError
from worker.storage.objects import write_whole

IN_USE_SECONDS = 3600.0
"""A file that was asked for this recently is kept, whatever the quota: a request in the queue may need it."""


class _Kept(NamedTuple):
    used_at: float
    size: int
    delete: Callable[[], None]


class HubNote:
    """Notes what a request brings into the hub's cache; `on_progress` is told of the download."""

    def __init__(self, cache: Path) -> None:
        self._notes = cache / "hub"
        self._begun: Path | None = None
        self._repo_id = ""

    def on_progress(self, progress: Progress) -> None:
        if self._begun is None:
            self._repo_id = progress.repo_id
            self._begun = self._notes / f"{_name(f'{progress.repo_id}/{progress.filename}')}.begun"
            self._write(self._begun, None)

    def used(self, path: Path) -> bool:
        """The request uses this file of the hub's cache; whether it was the request that brought it there."""
        note = self._notes / f"{_name(str(path))}.file"
        if self._begun is not None:
            self._write(note, path)
            self._begun.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.utime(note)
        return self._begun is not None

    def _write(self, note: Path, path: Path | None) -> None:
        try:
            self._notes.mkdir(parents=True, exist_ok=True)
            said = {"repo_id": self._repo_id, "path": str(path) if path else None}
            write_whole(note, json.dumps(said).encode())
        except OSError as error:
            raise StorageError(f"The file could not be kept here: {error.strerror}.") from error


def trim(cache: Path, max_bytes: int) -> int:
    """Deletes downloads that were never finished, and what was unused longest until the rest fits.

    Returns how many files that were.
    """
    begun = [_file(path) for path in cache.glob("urls/*.part")]
    begun += [_hub_file(note) for note in cache.glob("hub/*.begun")]
    stale = [each for each in begun if _is_unused(each.used_at)]
    kept = [_file(path) for path in cache.glob("files/*.safetensors")]
    kept += [_hub_file(note) for note in cache.glob("hub/*.file")]
    room = max_bytes
    for each in sorted(kept, key=lambda each: each.used_at, reverse=True):
        room -= each.size
        if room < 0 and _is_unused(each.used_at):
            stale.append(each)
    for each in stale:
        each.delete()
    return len(stale)


def _file(path: Path) -> _Kept:
    """Its time is that of its last use (worker.inputs.lora_download)."""

    def delete() -> None:
        path.unlink(missing_ok=True)

    return _Kept(_used_at(path), _size(path), delete)


def _hub_file(note: Path) -> _Kept:
    said = json.loads(note.read_bytes())
    path = Path(said["path"]) if said["path"] else None

    def delete() -> None:
        evict(said["repo_id"], path, IN_USE_SECONDS)
        note.unlink(missing_ok=True)

    return _Kept(_used_at(note), _size(path) if path else 0, delete)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_unused(used_at: float) -> bool:
    return time.time() - used_at > IN_USE_SECONDS


def _used_at(path: Path) -> float:
    """Unix seconds; 0 when it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
