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

from models.job import Mask, Pixels
from worker.errors import StorageError
from worker.storage.objects import Objects

log = logging.getLogger(__name__)

FOLDER = "work"

INLINE_CHARACTERS = 16_384
"""A data URI up to this long stays in the record."""

ASIDE = "(kept aside)"
"""A picture's field in the record of a request whose data URI is kept here; no caller could send it."""

PICTURE_FIELDS = ("image_url", "mask_image_url")
"""The fields of an input that may hold a picture; a data URI is kept in a file of its field's name."""

YOUNG_SECONDS = 600
"""What is kept is there before its record is; so long it is not taken for an orphan."""


def holds_picture(body: Mapping[str, Any]) -> bool:
    """Whether an input is too large for its record, which is read at every poll."""
    return bool(large_pictures(body))


def large_pictures(body: Mapping[str, Any]) -> dict[str, str]:
    """The data URIs that make an input so large, by field."""
    return {
        field: url
        for field in PICTURE_FIELDS
        if len(url := body.get(field) or "") > INLINE_CHARACTERS and url[:5].lower() == "data:"
    }


class Detached(NamedTuple):
    """An input whose pictures are kept aside."""

    body: dict[str, Any]
    """The input without them."""
    size: int = 0
    """Bytes of the pictures."""
    spare: int | None = None
    """Bytes that callers might have sent just before; None: there is no end to them."""


class Workspace:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def detach_pictures(self, request_id: str, body: dict[str, Any]) -> Detached:
        """Keeps the pictures of a body that `holds_picture`. Raises StorageError and DiskFull."""
        pictures = {field: url.encode() for field, url in large_pictures(body).items()}
        size = sum(map(len, pictures.values()))
        self._objects.check_room(size)
        spare = self._objects.spare_bytes()
        for field, data in pictures.items():
            self._write(request_id, f"{field}.txt", data)
        return Detached(body | dict.fromkeys(pictures, ASIDE), size, spare)

    def attach_pictures(self, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """The input as it was sent. Raises StorageError when a picture is gone."""
        aside = [field for field in PICTURE_FIELDS if body.get(field) == ASIDE]
        return body | {field: self._read(request_id, f"{field}.txt").decode() for field in aside}

    def save(self, request_id: str, token: str, pixels: Pixels | Mask, part: str = "image") -> str:
        """Keeps an array of pixels; returns the name to load it by. Raises StorageError.

        `part` tells apart what one stage leaves.
        """
        data = io.BytesIO()
        np.save(data, pixels, allow_pickle=False)
        name = f"{token}.{part}.npy"
        self._write(request_id, name, data.getvalue())
        return name

    def load(self, request_id: str, name: str) -> Any:
        """The array of pixels under a name. Raises StorageError when the file is gone."""
        return np.load(io.BytesIO(self._read(request_id, name)), allow_pickle=False)

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
