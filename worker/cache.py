"""The disk that LoRAs fetched from callers' URLs may take, in DATA_DIR/cache."""

import time
from contextlib import suppress
from pathlib import Path

IN_USE_SECONDS = 3600.0
"""A file that was asked for this recently is kept, whatever the quota: a request in the queue may need it."""


def trim(cache: Path, max_bytes: int) -> int:
    """Deletes downloads that were never finished, and what was unused longest until the rest fits.

    Returns how many files that were. The time of a file is that of its last use (worker.download).
    """
    now = time.time()
    stale = [path for path in cache.glob("urls/*.part") if now - _used_at(path) > IN_USE_SECONDS]
    kept = sorted(cache.glob("files/*.safetensors"), key=_used_at, reverse=True)
    room = max_bytes
    for path in kept:
        with suppress(FileNotFoundError):
            room -= path.stat().st_size
        if room < 0 and now - _used_at(path) > IN_USE_SECONDS:
            stale.append(path)
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _used_at(path: Path) -> float:
    """Unix seconds; 0 when it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
