"""The disk that caches may take: all of DATA_DIR/cache, and what callers brought into the hub's cache.

Of the hub's cache, which other programs use too, only what a caller's request brought there is ever deleted:
`DATA_DIR/cache/hub` has a note of each such file.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from redis.exceptions import RedisError

from models.disk import spare_bytes
from models.in_use import delete_unheld, is_held
from models.weights.hub import Progress, evict
from worker.atomic import write_whole
from worker.config import DAY_SECONDS, WorkerSettings
from worker.errors import StorageError

UNFINISHED_SECONDS = 3600.0
"""What nobody has gone on writing for so long was left by a process that died."""
LOCK_SECONDS = 86_400.0
"""A lock is kept as long as the file that was fetched under it is fresh."""

InLine = Callable[[], Collection[str]]
"""What the requests in line need of the caches: names of LoRAs as callers wrote them, paths, SHA-256s."""

log = logging.getLogger(__name__)


class _Kept(NamedTuple):
    used_at: float
    size: int
    names: frozenset[str]
    """What a request in line may call it by."""
    delete: Callable[[], object]
    in_use: bool = False
    """Whether it counts and is never deleted."""


class HubMarker:
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


class DiskQuota:
    """Deletes what was unused longest until the rest fits, but for what the requests in line need.

    Several processes may trim at once: what another has deleted meanwhile is no fault.
    """

    def __init__(self, settings: WorkerSettings, in_line: InLine | None = None) -> None:
        """Without `in_line` the files of LoRAs are left to a process that can ask what is in line."""
        self._cache = settings.cache_path
        self._max_bytes = settings.max_cache_bytes
        self._max_image_bytes = settings.max_image_cache_bytes
        self._max_image_seconds = settings.retention_days * DAY_SECONDS
        self._in_line = in_line

    def trim(self) -> int:
        """Brings every cache under its quota; returns how many files that cost."""
        stale = [each for each in self._unfinished() if _age(each) > UNFINISHED_SECONDS]
        stale += [each for each in self._files("urls/*.lock") if _age(each) > LOCK_SECONDS]
        stale += [each for each in self._files("urls/*.json") if _age(each) > LOCK_SECONDS]
        weights = [*self._files("files/*.safetensors"), *self._hub_files("hub/*.file"), *self._copies()]
        if self._in_line and (beyond := self._beyond(weights, self._max_bytes)):
            stale += self._spared(beyond, self._in_line)
        stale += self._images()
        for each in stale:
            # Whoever cannot delete one file deletes the others.
            with suppress(OSError):
                each.delete()
        return len(stale)

    def trim_images(self) -> None:
        """Brings the cache of images alone under its quota."""
        for each in self._images():
            each.delete()

    def _images(self) -> list[_Kept]:
        images = list(self._files("images/*"))
        old = [each for each in images if _age(each) > self._max_image_seconds]
        return old + [each for each in self._beyond(images, self._max_image_bytes) if each not in old]

    def _beyond(self, kept: Iterable[_Kept], max_bytes: int) -> list[_Kept]:
        """What does not fit, the longest unused; a cache makes room where the disk is nearly full."""
        newest = sorted(kept, key=lambda each: (each.in_use, each.used_at), reverse=True)
        room = min(max_bytes, sum(each.size for each in newest) + spare_bytes(self._cache))
        beyond = []
        for each in newest:
            room -= each.size
            if room < 0 and not each.in_use:
                beyond.append(each)
        return beyond

    def _spared(self, beyond: list[_Kept], in_line: InLine) -> list[_Kept]:
        try:
            names = set(in_line())
        except RedisError as error:
            log.warning("the caches are trimmed later: %s", error)
            return []
        for name in tuple(names):
            # A hub id with a file, and the content that a URL stands for.
            names.add("/".join(name.split("/")[:2]))
            with suppress(OSError, ValueError, KeyError, TypeError):
                names.add(json.loads((self._cache / "urls" / f"{_name(name)}.json").read_bytes())["sha256"])
        return [each for each in beyond if not each.names & names]

    def _unfinished(self) -> Iterator[_Kept]:
        yield from self._files("urls/*.part")
        yield from self._files(".draft-*")
        yield from self._hub_files("hub/*.begun")

    def _copies(self) -> Iterator[_Kept]:
        """Copies of weights in fewer bits (`models.inference.loading.copies`).

        Their time of change says whether they are sound, so that of access says when they were used.
        """
        for path in self._cache.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                stat, in_use = path.stat(), is_held(path)
                if in_use:
                    # So that it is not the longest unused while its worker starts anew.
                    with suppress(PermissionError):
                        os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))
                delete = partial(delete_unheld, path)
                yield _Kept(stat.st_atime, stat.st_size, frozenset({path.stem}), delete, in_use)

    def _files(self, pattern: str) -> Iterator[_Kept]:
        """The time of a file is that of its last use."""
        for path in self._cache.glob(pattern):
            with suppress(FileNotFoundError):
                stat = path.stat()
                yield _Kept(stat.st_mtime, stat.st_size, frozenset({path.stem}), _deleting(path))

    def _hub_files(self, pattern: str) -> Iterator[_Kept]:
        for note in self._cache.glob(pattern):
            try:
                used_at, said = note.stat().st_mtime, json.loads(note.read_bytes())
                repo_id, path = str(said["repo_id"]), Path(said["path"]) if said["path"] else None
                size = path.stat().st_size if path and path.is_file() else 0
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                # A note that tells nothing: the file it stood for is left to whoever looks after that cache.
                note.unlink(missing_ok=True)
                continue
            names = frozenset({repo_id, str(path)})
            yield _Kept(used_at, size, names, _evicting(note, repo_id, path))


def _deleting(path: Path) -> Callable[[], None]:
    return lambda: path.unlink(missing_ok=True)


def _evicting(note: Path, repo_id: str, path: Path | None) -> Callable[[], None]:
    def delete() -> None:
        with suppress(FileNotFoundError):
            evict(repo_id, path, UNFINISHED_SECONDS)
        note.unlink(missing_ok=True)

    return delete


def _age(kept: _Kept) -> float:
    """Seconds since its last use."""
    return time.time() - kept.used_at


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
