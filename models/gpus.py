"""The GPUs of this machine, found without importing torch."""

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

DEVICES = Path("/dev")

DRIVER = 580
"""Oldest of NVIDIA's drivers with CUDA 13."""

SMI_SECONDS = 10.0
"""How long NVIDIA's driver may take to answer before it counts as broken."""


def gpu_present() -> bool:
    """True where this machine has a GPU that the published model may run on: NVIDIA's or Apple's."""
    return _is_apple() or (_allowed() != [] and (any(_device_files()) or bool(_ask("index"))))


def visible_gpus() -> list[str]:
    """One value of CUDA_VISIBLE_DEVICES for each GPU; the variable itself limits them when it is set."""
    allowed = _allowed()
    if allowed is not None:
        return allowed
    listed = _ask("index")
    return [str(index) for index, _ in enumerate(_device_files())] if listed is None else listed


def drivers() -> list[str]:
    """Versions of NVIDIA's driver here, one as a rule; nothing where it is not there or does not say."""
    return list(dict.fromkeys(_ask("driver_version") or []))


def old_drivers() -> list[str]:
    """Versions of NVIDIA's driver here that are older than CUDA 13, which torch's wheels bring, can use."""
    return [each for each in drivers() if (major := each.partition(".")[0]).isdigit() and int(major) < DRIVER]


def describe_gpus() -> list[str]:
    """Name, memory and driver of each GPU for a person to read; nothing when there is none."""
    if _is_apple():
        return ["Apple's own, used by MPS"]
    return _ask("name,memory.total,driver_version") or []


def _is_apple() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def _allowed() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES allows; None where it is not set and so allows every GPU."""
    limit = os.environ.get("CUDA_VISIBLE_DEVICES")
    if limit is None:
        return None
    ids = [part.strip() for part in limit.split(",")]
    # CUDA reads it so: the first invalid entry hides itself and all after it.
    return ids[: next((place for place, id in enumerate(ids) if id in ("", "-1")), len(ids))]


def _device_files() -> Iterator[Path]:
    return DEVICES.glob("nvidia[0-9]*")


def _ask(fields: str) -> list[str] | None:
    """A line for each GPU from NVIDIA's driver; None when it is not there or does not work."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]
