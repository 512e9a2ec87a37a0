"""Where pictures are kept: outputs and uploads, each a file under an id that nobody can guess.

The id is the permission to read, so no method lists ids, and what cannot be an id or name of our own making
is not looked up at all.
"""

import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from worker.errors import StorageError

ID_BYTES = 16
PART_SECONDS = 3600.0
"""Nobody writes one file for so long: what is unfinished then was left by a process that died."""
FILE_ID = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\.(png|jpeg|jpg|webp|gif|bmp|avif)")


@dataclass(frozen=True)
class StoredFile:
    """An open file; close it when done."""

    file: BinaryIO
    size: int
    modified_at: float
    """Unix seconds."""


class Storage(Protocol):
    """What is asked of a place for pictures."""

    def put(self, file_id: str, name: str, data: bytes) -> None:
        """Keeps `data`, wholly or not at all, and returns once it is safe. Raises StorageError."""

    def open(self, file_id: str, name: str) -> StoredFile | None:
        """None when there is no such file."""

    def delete(self, file_id: str) -> None:
        """Deletes everything under the id, if there is anything."""

    def sweep(self, max_age_seconds: float) -> int:
        """Deletes what is older, referenced or not, and what was never finished; returns how many files."""


def new_file_id() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(ID_BYTES)


class FolderStorage:
    """Files in a local folder: `ab/cd/<file_id>/<name>`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, file_id: str, name: str) -> Path | None:
        """Where the file lies if it exists; None for what cannot be the id or name of a file here."""
        if not FILE_ID.fullmatch(file_id) or not NAME.fullmatch(name):
            return None
        return self._folder(file_id) / name

    def _folder(self, file_id: str) -> Path:
        return self._root / file_id[:2] / file_id[2:4] / file_id

    def put(self, file_id: str, name: str, data: bytes) -> None:
        path = self.path(file_id, name)
        if path is None:
            raise ValueError(f"not the id and name of a file: {file_id!r}, {name!r}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            raise StorageError(f"The picture could not be kept: {error.strerror}.") from error

    def open(self, file_id: str, name: str) -> StoredFile | None:
        path = self.path(file_id, name)
        if path is None:
            return None
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        status = os.fstat(file.fileno())
        return StoredFile(file, status.st_size, status.st_mtime)

    def delete(self, file_id: str) -> None:
        if not FILE_ID.fullmatch(file_id):
            return
        folder = self._folder(file_id)
        with suppress(FileNotFoundError):
            for path in list(folder.iterdir()):
                path.unlink(missing_ok=True)
            folder.rmdir()

    def sweep(self, max_age_seconds: float) -> int:
        now = time.time()
        swept = 0
        for path in self._root.glob("??/??/*/*"):
            longest = min(PART_SECONDS, max_age_seconds) if path.suffix == ".part" else max_age_seconds
            with suppress(OSError):
                if now - path.stat().st_mtime > longest:
                    path.unlink()
                    swept += 1
                    path.parent.rmdir()
        return swept


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
