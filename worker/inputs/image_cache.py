"""Images fetched from callers' URLs, kept on disk for as long as their servers say that they are the same.

Every use asks the server by ETag or date, so that a request gets what it would have got without the cache,
and whoever may not read the URL any more is refused as before. What a server gives no version of is not kept,
nor what was not used for as long as requests are kept.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from models.disk import check_room
from models.errors import DiskFull
from worker.atomic import write_whole
from worker.config import WorkerSettings
from worker.counters import count
from worker.inputs.disk_quota import DiskQuota
from worker.inputs.fetch import UNKNOWN, Limits, Version, fetch
from worker.inputs.guard import AllowList

IMAGE_SECONDS = 30.0


class _Kept(NamedTuple):
    version: Version
    body: bytes


NOTHING = _Kept(UNKNOWN, b"")


class ImageCache:
    """`images/<sha256 of the URL>` in the cache: a line of JSON, which is the version and
    the body's SHA-256, then the body."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._folder = settings.cache_path / "images"
        self._max_bytes = settings.max_image_cache_bytes
        self._quota = DiskQuota(settings)
        self._limits = Limits(settings.max_image_bytes, IMAGE_SECONDS)
        self._allowed = AllowList.parse(settings.allow_hosts)

    def get(self, url: str, field: str) -> bytes:
        """The bytes at `url`. Raises FetchError, which names `field`."""
        path = self._folder / hashlib.sha256(url.encode()).hexdigest()
        kept = self._read(path)
        fetched = bytearray()
        version = fetch(url, field, self._limits, self._allowed, fetched.extend, kept.version)
        count("cache", "image", "miss" if version else "hit")
        if version is None:
            return kept.body
        body = bytes(fetched)
        # A cache that cannot be written to costs time, and no request.
        with suppress(OSError, DiskFull):
            self._keep(path, _Kept(version, body))
        return body

    def _read(self, path: Path) -> _Kept:
        try:
            version, _, body = path.read_bytes().partition(b"\n")
            # When it was last used.
            os.utime(path)
        except OSError:
            return NOTHING
        # Under another limit since: asked for anew, and refused.
        if len(body) > self._limits.max_bytes:
            return NOTHING
        try:
            etag, modified, digest = json.loads(version)
            if digest == hashlib.sha256(body).hexdigest():
                return _Kept(Version(str(etag), str(modified)), body)
        except (ValueError, TypeError):
            pass
        # A file that is no longer what was written would be taken for the picture for ever.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return NOTHING

    def _keep(self, path: Path, kept: _Kept) -> None:
        if not kept.version.conditions() or len(kept.body) > self._max_bytes:
            path.unlink(missing_ok=True)
            return
        check_room(self._folder, len(kept.body))
        self._folder.mkdir(parents=True, exist_ok=True)
        head = [*kept.version, hashlib.sha256(kept.body).hexdigest()]
        write_whole(path, json.dumps(head).encode() + b"\n" + kept.body)
        self._quota.trim_images()
