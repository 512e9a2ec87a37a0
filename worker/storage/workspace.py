"""The data that a request needs on its way and that is too large for its record, under `work/<request_id>/`.

A picture sent in the request itself, and the pixels that one stage leaves for the next. The API and all
workers of one server see the same. A file of pixels is named by the token of whoever wrote it, so a worker
that lost its request never overwrites what its successor reads.
"""

import io
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from models.job import Pixels
from worker.errors import StorageError
from worker.storage.objects import Objects

log = logging.getLogger(__name__)

FOLDER = "work"

INLINE_CHARACTERS = 16_384
"""A data URI up to this long stays in the record."""

ASIDE = "(kept aside)"
"""`image_url` in the record of a request whose data URI is kept here; nothing that a caller could send."""

SOURCE_NAME = "image_url.txt"

YOUNG_SECONDS = 600
"""What is kept is there before its record is; so long it is not taken for an orphan."""


def holds_picture(body: Mapping[str, Any]) -> bool:
    """Whether an input is too large for its record, which is read at every poll."""
    url = body.get("image_url", "")
    return len(url) > INLINE_CHARACTERS and url[:5].lower() == "data:"


class Detached(NamedTuple):
    """An input whose picture is kept aside."""

    body: dict[str, Any]
    """The input without it."""
    size: int = 0
    """Bytes of the picture."""
    spare: int | None = None
    """Bytes that callers might have sent just before; None: there is no end to them."""


class Workspace:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def detach_image(self, request_id: str, body: dict[str, Any]) -> Detached:
        """Keeps the picture of a body that `holds_picture`. Raises StorageError and DiskFull."""
        data = body["image_url"].encode()
        self._objects.check_room(len(data))
        spare = self._objects.spare_bytes()
        self._write(request_id, SOURCE_NAME, data)
        return Detached(body | {"image_url": ASIDE}, len(data), spare)

    def attach_image(self, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
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
        self._objects.put(f"{FOLDER}/{request_id}/{name}", data)

    def _read(self, request_id: str, name: str) -> bytes:
        data = self._objects.get(f"{FOLDER}/{request_id}/{name}")
        if data is None:
            raise StorageError(
                "The request's data is gone; the API and the workers must share one ZTURBO_DATA_DIR, "
                "or one ZTURBO_STORAGE."
            )
        return data

    def remove(self, request_id: str) -> None:
        """Now if it can be, else at a later sweep."""
        try:
            self._objects.delete([found.key for found in self._objects.list(f"{FOLDER}/{request_id}")])
        except StorageError as error:
            log.warning("what request %s needed is cleared away later: %s", request_id, error)

    def sweep(self, is_over: Callable[[str], bool]) -> int:
        """Removes what requests left that are over, cancelled ones for instance; returns how many did."""
        touched_at: dict[str, float] = defaultdict(float)
        for key, modified_at in self._objects.list(FOLDER):
            request_id = key.split("/")[1]
            touched_at[request_id] = max(touched_at[request_id], modified_at)
        now = time.time()
        over = [each for each, at in touched_at.items() if now - at > YOUNG_SECONDS and is_over(each)]
        for request_id in over:
            self.remove(request_id)
        return len(over)
