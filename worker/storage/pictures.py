"""Where pictures are kept: outputs and uploads, each a file under an id that nobody can guess.

The id is the permission to read, so no method lists ids, and what cannot be an id or name of our own making
is not looked up at all.
"""

import re
import secrets

from worker.storage.objects import Objects

FOLDER = "outputs"
ID_BYTES = 16
FILE_ID = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\.(png|jpeg|jpg|webp|gif|bmp|avif|heif)")


def new_file_id() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(ID_BYTES)


class Storage:
    """Files as `outputs/ab/cd/<file_id>/<name>`. Every method raises StorageError."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def put(self, file_id: str, name: str, data: bytes) -> None:
        """Keeps `data`, wholly or not at all, and returns once it is safe."""
        if not FILE_ID.fullmatch(file_id) or not NAME.fullmatch(name):
            raise ValueError(f"not the id and name of a file: {file_id!r}, {name!r}")
        self._objects.put(file_key(file_id, name), data)

    def read(self, file_id: str, name: str) -> bytes | None:
        """None when there is no such file."""
        if not FILE_ID.fullmatch(file_id) or not NAME.fullmatch(name):
            return None
        return self._objects.get(file_key(file_id, name))

    def check_room(self, size: int = 0) -> None:
        """Raises DiskFull when there is no room for `size` bytes that a caller sends."""
        self._objects.check_room(size)

    def spare_bytes(self) -> int | None:
        """What callers may still send; None: there is no end to it."""
        return self._objects.spare_bytes()

    def check(self) -> None:
        """Returns if the place answers."""
        self._objects.get(f"{FOLDER}/probe")

    def delete(self, file_id: str) -> None:
        """Deletes everything under the id, if there is anything."""
        if FILE_ID.fullmatch(file_id):
            self._objects.delete([found.key for found in self._objects.list(_folder(file_id))])


def file_key(file_id: str, name: str) -> str:
    return f"{_folder(file_id)}/{name}"


def _folder(file_id: str) -> str:
    return f"{FOLDER}/{file_id[:2]}/{file_id[2:4]}/{file_id}"
