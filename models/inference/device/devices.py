"""The devices of this machine and the memory that is free on them."""

import os
from pathlib import Path
from typing import Literal

import torch

from models.errors import ModelError
from models.inference.denoise.int8 import seconds

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def find_device(wanted: str) -> str:
    """The device that a setting means here; `auto`: a CUDA GPU, else Apple's, else the CPU."""
    have = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted == "auto":
        return have
    if wanted.split(":")[0] not in (have, "cpu"):
        raise ModelError(f"ZTURBO_DEVICE={wanted} is not on this machine: PyTorch sees {have} only.")
    return wanted


def free_bytes(device: str) -> int:
    """Memory that is free on a device; host memory for the CPU and for Apple's GPU, which shares it."""
    if device.startswith("cuda"):
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return host_free_bytes()


def used_bytes(device: str) -> tuple[int, int]:
    """Memory in use on a CUDA device, by anybody, and all that it has."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free, total


def fast_type(device: str) -> Literal["float32", "bfloat16"]:
    """The narrower of the two, but on a processor without instructions for it, which is slower in it."""
    if device != "cpu":
        return "bfloat16"
    wide = torch.ones(512, 1024)
    narrow = wide.bfloat16()
    return (
        "bfloat16" if seconds(lambda: narrow @ narrow.t()) < seconds(lambda: wide @ wide.t()) else "float32"
    )


def host_free_bytes() -> int:
    """Host memory that can still be had, within the container's limit if there is one."""
    if MEMINFO.exists():
        lines = (line.split() for line in MEMINFO.read_text().splitlines())
        available = next(int(fields[1]) * 1024 for fields in lines if fields[0] == "MemAvailable:")
    else:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    return available if limit == "max" else min(available, int(limit))
