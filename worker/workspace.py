"""What a request needs on its way and is too large for its record, in `DATA_DIR/work/<request_id>/`.

A picture sent in the request itself, and the pixels that one stage leaves for the next. The API and all
workers of one server see the same folder. A file of pixels is named by the token of whoever wrote it, so a
worker that lost its request never overwrites what its successor reads.
"""

import io
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from models.job import Pixels
from worker.errors import StorageError
from worker.storage import write_whole

INLINE_CHARACTERS = 16_384
"""A data URI up to this long stays in the record."""

ASIDE = "(kept aside)"
"""`image_url` in the record of a request whose data URI is kept here; nothing that a caller could send."""

SOURCE_NAME = "image_url.txt"

YOUNG_SECONDS = 600
"""A folder is there before its record is; so long it is not taken for an orphan."""


class Workspace:
    def __init__(self, root: Path) -> None:
        self._root = root

    def slim_input(self, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """The input as its record keeps it: read at every poll, so with no picture in it.

        Raises StorageError.
        """
        url = body.get("image_url", "")
        if url[:5].lower() != "data:" or len(url) <= INLINE_CHARACTERS:
            return body
        self._write(request_id, SOURCE_NAME, url.encode())
        return body | {"image_url": ASIDE}

    def whole_input(self, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """The input as it was sent. Raises StorageError when the picture is gone."""
        if body.get("image_url") != ASIDE:
            return body
        return body | {"image_url": self._read(request_id, SOURCE_NAME).decode()}

    def save(self, request_id: str, token: str, pixels: Pixels, part: str = "image") -> str:
        """Keeps a (height, width, 3) picture; returns the name to load it by. Raises StorageError.

        `part` tells apart what one stage leaves.
        """
        data = io.BytesIO()
        np.save(data, pixels, allow_pickle=False)
        name = f"{token}.{part}.npy"
        self._write(request_id, name, data.getvalue())
        return name

    def load(self, request_id: str, name: str) -> Pixels:
        """Raises StorageError when the file is gone."""
        pixels: Pixels = np.load(io.BytesIO(self._read(request_id, name)), allow_pickle=False)
        return pixels

    def _write(self, request_id: str, name: str, data: bytes) -> None:
        folder = self._root / request_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, data)
        except OSError as error:
            raise StorageError(f"The request's data could not be kept: {error.strerror}.") from error

    def _read(self, request_id: str, name: str) -> bytes:
        try:
            return (self._root / request_id / name).read_bytes()
        except OSError as error:
            raise StorageError(
                "The request's data is gone; the API and the workers must share one ZTURBO_DATA_DIR."
            ) from error

    def remove(self, request_id: str) -> None:
        shutil.rmtree(self._root / request_id, ignore_errors=True)

    def sweep(self, is_over: Callable[[str], bool]) -> int:
        """Removes the folders of requests that are over, cancelled ones for instance; returns how many."""
        removed = 0
        for folder in self._root.glob("*"):
            # Another worker may be sweeping too.
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > YOUNG_SECONDS and is_over(folder.name):
                    self.remove(folder.name)
                    removed += 1
        return removed
