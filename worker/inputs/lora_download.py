"""LoRAs downloaded from callers' URLs: each is a checked file on this machine, kept for a day.

`urls/<sha256 of the URL>.json` in the cache says which `files/<sha256>.safetensors` it is; no name of the
other side's choosing is used. One worker downloads, others that want the same URL wait for it.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from models.disk import check_room
from models.errors import CheckpointError
from worker.atomic import write_whole
from worker.config import WorkerSettings
from worker.counters import count
from worker.errors import StorageError
from worker.inputs.disk_quota import DiskQuota
from worker.inputs.fetch import Limits, fetch
from worker.inputs.guard import AllowList

LORA_SECONDS = 3600.0
FRESH_SECONDS = 86_400
"""Age after which a URL is fetched anew: what it names may have changed."""

LOCK_POLL_SECONDS = 0.1


class Downloaded(NamedTuple):
    path: Path
    sha256: str


class Downloads:
    """The files that callers' URLs were fetched to."""

    def __init__(self, settings: WorkerSettings, quota: DiskQuota | None = None) -> None:
        self._urls = settings.cache_path / "urls"
        self._files = settings.cache_path / "files"
        self._quota = quota or DiskQuota(settings)
        self._limits = Limits(settings.max_lora_bytes, LORA_SECONDS)
        self._allowed = AllowList.parse(settings.allow_hosts)

    def get(
        self, url: str, field: str, check: Callable[[Path], object], keep_going: Callable[[], None]
    ) -> Downloaded:
        """The file at `url`, from the cache or else fetched.

        `check` is called with a fetched file before it is kept, `keep_going` while it arrives; what either
        raises stops the download. Raises FetchError and StorageError, which name `field`, and DiskFull.
        """
        key = hashlib.sha256(url.encode()).hexdigest()
        with _keeping(field):
            self._urls.mkdir(parents=True, exist_ok=True)
            self._files.mkdir(exist_ok=True)
            with _alone(self._urls / f"{key}.lock", keep_going):
                cached = self._cached(key, check)
                count("cache", "lora", "hit" if cached else "miss")
                return cached or self._fetch(url, field, key, check, keep_going)

    def _fetch(
        self, url: str, field: str, key: str, check: Callable[[Path], object], keep_going: Callable[[], None]
    ) -> Downloaded:
        digest = hashlib.sha256()
        part = self._urls / f"{key}.part"
        try:
            with part.open("wb") as file:

                def keep(chunk: bytes) -> None:
                    keep_going()
                    digest.update(chunk)
                    # At each, since others may fill the disk meanwhile.
                    check_room(part.parent, len(chunk))
                    with _keeping(field):
                        file.write(chunk)

                fetch(url, field, self._limits, self._allowed, keep)
                file.flush()
                os.fsync(file.fileno())
            check(part)
            self._quota.trim()
            sha256 = digest.hexdigest()
            # First what it stands for: a request in line keeps a file by its URL.
            entry = {"sha256": sha256, "at": time.time()}
            write_whole(self._urls / f"{key}.json", json.dumps(entry).encode())
            path = part.replace(self._files / f"{sha256}.safetensors")
        finally:
            part.unlink(missing_ok=True)
        return Downloaded(path, sha256)

    def _cached(self, key: str, check: Callable[[Path], object]) -> Downloaded | None:
        try:
            entry = json.loads((self._urls / f"{key}.json").read_bytes())
            path = self._files / f"{entry['sha256']}.safetensors"
            if time.time() - entry["at"] > FRESH_SECONDS:
                return None
            # When it was last used: the cache is trimmed by that.
            os.utime(path)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # Not there, or no longer what was written.
            return None
        try:
            check(path)
        except CheckpointError:
            # It was sound when it was kept; damaged since, it is fetched anew.
            path.unlink(missing_ok=True)
            return None
        return Downloaded(path, entry["sha256"])


@contextmanager
def _keeping(field: str) -> Iterator[None]:
    """Turns a fault of this machine's disk into a StorageError; a fault of the network is no OSError here."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{field}: the file could not be kept here: {error.strerror}.") from error


@contextmanager
def _alone(path: Path, keep_going: Callable[[], None]) -> Iterator[None]:
    """Holds the lock at `path`, which goes with the process, whatever way that ends."""
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                keep_going()
                time.sleep(LOCK_POLL_SECONDS)
        yield
