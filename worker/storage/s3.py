"""An S3-compatible store, by obstore; where it is and who we are is told by the AWS_ variables of every tool.

AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; on AWS itself also
the machine's own role. An object appears whole or not at all; its address never leaves this server.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from models.command import install
from worker.errors import SetupError, StorageError
from worker.storage.objects import Entry, SharedObjects

try:
    import obstore
    from obstore.exceptions import BaseError, GenericError
    from obstore.store import S3Store
except ModuleNotFoundError as missing:
    raise SetupError(
        f"ZTURBO_STORAGE names an S3 store, which needs one more package: `{install('s3')}` brings it."
    ) from missing

log = logging.getLogger(__name__)

CALL = timedelta(seconds=30)
"""One call, its body included; files of gigabytes go in pieces."""
CONNECT = timedelta(seconds=5)
RETRIES = timedelta(seconds=5)
"""A call that failed quickly is sent again for so long; each is signed anew after that."""
PAUSE_SECONDS = 1.0
PIECE_BYTES = 16 * 2**20

_STATUS = re.compile(r"status code: (\d{3})")

T = TypeVar("T")


class S3Objects(SharedObjects):
    """A bucket, or a folder in it. Safe to share between threads."""

    def __init__(self, url: str, patience_seconds: float) -> None:
        """`url` is `s3://bucket/folder`; a store that is away is waited for so long. Raises SetupError."""
        place = urlsplit(url)
        self._patience = patience_seconds
        try:
            self._store = S3Store(
                place.netloc,
                prefix=place.path.strip("/") or None,
                client_options={
                    "timeout": CALL,
                    "connect_timeout": CONNECT,
                    "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
                },
                retry_config={"retry_timeout": RETRIES, "backoff": {"max_backoff": timedelta(seconds=1)}},
            )
        except BaseError as error:
            raise SetupError(f"The S3 store of ZTURBO_STORAGE cannot be set up: {error}.") from error

    def put(self, key: str, data: bytes) -> None:
        self._keep(lambda: obstore.put(self._store, key, data, use_multipart=False))

    def get(self, key: str) -> bytes | None:
        return self._patiently(lambda: bytes(obstore.get(self._store, key).bytes()))

    def list(self, prefix: str) -> Iterator[Entry]:
        try:
            for page in obstore.list(self._store, prefix=prefix):
                for found in page:
                    yield Entry(found["path"], found["last_modified"].timestamp())
        except (BaseError, FileNotFoundError) as error:
            raise _fault(error) from error

    def delete(self, keys: Iterable[str]) -> None:
        if paths := list(keys):
            self._patiently(lambda: obstore.delete(self._store, paths))

    def check_room(self, size: int) -> None:
        """A bucket has no end."""

    def spare_bytes(self) -> int | None:
        return None

    def send_file(self, key: str, path: Path, fresh_seconds: float) -> None:
        found = self._patiently(lambda: obstore.head(self._store, key))
        if found is None or time.time() - found["last_modified"].timestamp() > fresh_seconds:
            self._keep(lambda: obstore.put(self._store, key, path))

    def fetch_file(self, key: str, path: Path, keep_going: Callable[[], None]) -> bool:
        found = self._patiently(lambda: obstore.head(self._store, key))
        if found is None:
            return False
        with path.open("wb") as file:
            while (start := file.tell()) < found["size"]:
                keep_going()
                piece = self._piece(key, start, min(PIECE_BYTES, found["size"] - start))
                if piece is None:
                    return False
                file.write(piece)
        return True

    def _piece(self, key: str, start: int, length: int) -> bytes | None:
        return self._patiently(lambda: bytes(obstore.get_range(self._store, key, start=start, length=length)))

    def _keep(self, put: Callable[[], object]) -> None:
        if self._patiently(put) is None:
            raise StorageError("The store of pictures (ZTURBO_STORAGE) has no bucket of that name.")

    def _patiently(self, call: Callable[[], T]) -> T | None:
        """What the call returns; None when the object, or the bucket, is not there."""
        end = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except FileNotFoundError:
                return None
            except BaseError as error:
                fault = _fault(error)
                if not _is_away(error) or time.monotonic() > end:
                    raise fault from error
                # Not obstore's own words: they hold the key, and who knows the key of a picture may see it.
                log.warning("%s It is asked again.", fault)
                time.sleep(PAUSE_SECONDS)


def _is_away(error: BaseError) -> bool:
    """Whether the store may do the same later."""
    status = _STATUS.search(str(error))
    return isinstance(error, GenericError) and (status is None or status[1] >= "500")


def _fault(error: Exception) -> StorageError:
    status = _STATUS.search(str(error))
    said = f"answers {status[1]}" if status else "does not answer"
    return StorageError(f"The store of pictures (ZTURBO_STORAGE) {said}.")
