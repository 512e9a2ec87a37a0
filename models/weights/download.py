"""Downloads of large files from the hub into its cache, which go on where they were interrupted.

huggingface_hub 2 starts a file again from its first byte when a download was interrupted, and does not check
what arrived; the base model has files of 10 GB. So the bytes are brought here, to the place in the cache
where huggingface_hub looks for them (`blobs/<sha256>`), under its own lock; it does everything else.
"""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx2
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not marked as such
    WeakFileLock,
    build_hf_headers,
    hf_raise_for_status,
)

from models.disk import check_room
from models.errors import HubError

TRIES = 4
"""Attempts without one new byte before a download is given up."""

FIRST_PAUSE = 0.5
"""Seconds before the second attempt; doubled for each further one."""

LOCK_SECONDS = 0.5
"""Between two reports while another process downloads the file."""

CHUNK_BYTES = 2**20

CACHE_NAME = "the Hugging Face cache (HF_HOME)"
"""Whose disk it is, in a message."""
RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)

OnBytes = Callable[[int], None]
"""Called with the bytes on the disk so far; what it raises stops the download, which can be resumed."""


def fetch_blob(url: str, blob: Path, lock: Path, size: int, sha256: str, on_bytes: OnBytes) -> None:
    """Bring the file of `size` bytes at `url` to `blob`, going on from what an earlier attempt left.

    One process downloads, others wait for the lock and find the file. Raises DiskFull when there is no
    room, HubError when the content is not what the hub announced, huggingface_hub's and httpx2's errors for
    the rest.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    # The name under which huggingface_hub before 2.0 resumed; its tools know it for an unfinished file.
    part = blob.with_name(f"{blob.name}.incomplete")
    with ExitStack() as stack:
        while not _entered(stack, lock):
            on_bytes(_size(part))
        if blob.exists():
            return
        if size > _size(part):
            check_room(blob.parent, size - _size(part), CACHE_NAME)
        _download(url, part, size, on_bytes)
        if _size(part) != size or file_sha256(part) != sha256:
            part.unlink()
            raise HubError("The file arrived damaged (its checksum is not the hub's); try again.")
        part.replace(blob)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entered(stack: ExitStack, lock: Path) -> bool:
    try:
        stack.enter_context(WeakFileLock(lock, timeout=LOCK_SECONDS))
    except TimeoutError:
        return False
    return True


def _download(url: str, part: Path, size: int, on_bytes: OnBytes) -> None:
    failures = 0
    while (before := _size(part)) != size:
        try:
            _append(url, part, size, on_bytes)
        except (httpx2.TransportError, HfHubHTTPError) as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in RETRIED_STATUSES:
                raise
            failures = 1 if _size(part) > before else failures + 1
            if failures == TRIES:
                raise
            time.sleep(FIRST_PAUSE * 2 ** (failures - 1))


def _append(url: str, part: Path, size: int, on_bytes: OnBytes) -> None:
    """One attempt: ask for the bytes that are missing and write them down as they come."""
    begin = _size(part)
    if begin > size:
        part.unlink()
        begin = 0
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if response.status_code != 206:
            begin = 0
        with part.open("r+b" if begin else "wb") as file:
            file.seek(begin)
            file.truncate()
            on_bytes(begin)
            for chunk in response.iter_bytes(CHUNK_BYTES):
                # Others may fill the disk meanwhile.
                check_room(part.parent, len(chunk), CACHE_NAME)
                file.write(chunk)
                on_bytes(file.tell())
                if file.tell() > size:
                    raise HubError("The hub sent more bytes than it announced; try again.")
            file.flush()
            os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
