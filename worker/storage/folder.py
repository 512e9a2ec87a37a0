"""Objects in a local folder, which the processes of one machine share."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from models import disk
from worker.atomic import write_whole
from worker.errors import StorageError
from worker.storage.objects import Entry


class FolderObjects:
    """Each key is a file's path below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> None:
        path = self._root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            with suppress(OSError):
                path.parent.rmdir()
            raise _fault("kept", error) from error

    def get(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault("read", error) from error

    def list(self, prefix: str) -> Iterator[Entry]:
        for folder, _, names in os.walk(self._root / prefix):
            for name in names:
                path = Path(folder, name)
                # Another process may be sweeping too.
                with suppress(FileNotFoundError):
                    yield Entry(path.relative_to(self._root).as_posix(), path.stat().st_mtime)

    def delete(self, keys: Iterable[str]) -> None:
        for path in (self._root / key for key in keys):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _fault("deleted", error) from error
            with suppress(OSError):
                path.parent.rmdir()

    def check_room(self, size: int) -> None:
        disk.check_room(self._root, size)

    def spare_bytes(self) -> int | None:
        return disk.spare_bytes(self._root)


def _fault(what: str, error: OSError) -> StorageError:
    # Without the path: the caller reads this.
    return StorageError(f"The request's data could not be {what} on this server: {error.strerror}.")
