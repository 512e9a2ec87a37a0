"""The floor of free disk: what is kept free so that Redis and finished pictures can still be written.

Whatever a caller sends or has fetched, and every copy that only saves time, is refused below it.
"""

import shutil
from pathlib import Path

from models.errors import DiskFull

FLOOR_BYTES = 10**9
FLOOR_SHARE = 0.02
"""Part of the whole disk; the larger of the two is the floor."""


def spare_bytes(folder: Path) -> int:
    """Bytes above the floor on the disk of `folder`, which need not exist yet; negative below the floor."""
    free, floor = _free_and_floor(folder)
    return free - floor


def check_room(folder: Path, size: int = 0, owner: str = "this server") -> None:
    """Raises DiskFull unless `size` more bytes leave the floor free on the disk of `folder`.

    `owner` is whose disk the message says that it is.
    """
    free, floor = _free_and_floor(folder)
    if free - size < floor:
        needed = f", and {size / 1e9:.1f} GB are needed" if size >= 10**8 else ""
        raise DiskFull(
            f"The disk of {owner} has {free / 1e9:.1f} GB free, of which {floor / 1e9:.1f} GB are kept free"
            f"{needed}; make room there or try again later."
        )


def _free_and_floor(folder: Path) -> tuple[int, int]:
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    return disk.free, max(FLOOR_BYTES, int(disk.total * FLOOR_SHARE))
