"""The host memory that can still be had, within the limits of the control groups that this process is in, and
what of it the process keeps.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")

LIMITS = (
    ("", "", "memory.max", "memory.current"),
    ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""The controller in `OWN_GROUPS`, the folder of its groups and the names of their files, in the second
version of control groups and in the first."""

MAC_SHARE = 2 / 3
"""Part of a Mac's memory that counts as free, as Metal has it for the GPU. macOS has no figure of its own: it
makes room by compressing what other programs have, and wants some for itself."""

KEPT_BYTES = 256 * 2**20
"""Freed memory that is kept for what comes next: some times what one block of a step takes and frees."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def keep_freed_memory() -> None:
    """Have glibc keep what tensors on the CPU have freed; other C libraries are left as they are.

    By itself it gives the system back what every block of a step frees, and each page that is taken again
    costs a fault: 277,000 of them, 1.1 GB, in a step in 8 bits at 256x256, and 6 % of its time.
    """
    # An older or another C library has no `mallopt`.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def host_free_bytes() -> int:
    """What the machine has, or what the tightest control group around this process leaves of it."""
    return min(_available(), *_left_in_groups(), 2**62)


def _available() -> int:
    if not MEMINFO.exists():
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MAC_SHARE)
    lines = (line.split() for line in MEMINFO.read_text().splitlines())
    return next(int(fields[1]) * 1024 for fields in lines if fields[0] == "MemAvailable:")


def _left_in_groups() -> Iterator[int]:
    """Bytes left in each control group that has a limit; pages of files count, as a full group drops them."""
    for folder, limit_file, usage_file in _groups():
        # Without a limit there is no number, or no such file.
        with suppress(OSError, ValueError):
            limit, usage = (int((folder / name).read_text()) for name in (limit_file, usage_file))
            yield max(0, limit - usage + _droppable(folder / "memory.stat"))


def _groups() -> Iterator[tuple[Path, str, str]]:
    try:
        lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        for controller, folder, limit_file, usage_file in LIMITS:
            if controller in controllers.split(","):
                root = GROUPS / folder
                # A container sees its own group as the root, under whatever path it has outside.
                own = root / path.lstrip("/")
                for group in (own, *own.parents):
                    if group.is_relative_to(root):
                        yield group, limit_file, usage_file


def _droppable(stat: Path) -> int:
    """Those of the group and all below it, which the first version of control groups calls `total_`."""
    counts = dict(line.split() for line in stat.read_text().splitlines())
    if "total_inactive_file" in counts:
        return int(counts["total_inactive_file"]) + int(counts["total_active_file"])
    return int(counts["inactive_file"]) + int(counts["active_file"])
