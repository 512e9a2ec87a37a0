"""The pixels that one stage leaves for the next, in `DATA_DIR/work/<request_id>/`, until the request is done.

All workers of one server see the same folder. A file's name is the token of whoever wrote it, so a worker
that lost its request never overwrites what its successor reads.
"""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.job import Pixels
from worker.errors import StorageError
from worker.storage import write_whole


class Workspace:
    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, request_id: str, token: str, pixels: Pixels) -> str:
        """Keeps a (height, width, 3) picture; returns the name to load it by. Raises StorageError."""
        name = f"{token}.npy"
        data = io.BytesIO()
        np.save(data, pixels, allow_pickle=False)
        folder = self._root / request_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, data.getvalue())
        except OSError as error:
            raise StorageError(
                f"The pixels could not be kept for the next stage: {error.strerror}."
            ) from error
        return name

    def load(self, request_id: str, name: str) -> Pixels:
        """Raises StorageError when the file is gone."""
        try:
            pixels: Pixels = np.load(self._root / request_id / name, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StorageError(
                "The pixels of the stage before are gone; the workers must share one ZTURBO_DATA_DIR."
            ) from error
        return pixels

    def remove(self, request_id: str) -> None:
        shutil.rmtree(self._root / request_id, ignore_errors=True)

    def sweep(self, is_over: Callable[[str], bool]) -> int:
        """Removes the folders of requests that are over, cancelled ones for instance; returns how many."""
        if not self._root.is_dir():
            return 0
        over = [folder.name for folder in self._root.iterdir() if is_over(folder.name)]
        for request_id in over:
            self.remove(request_id)
        return len(over)
