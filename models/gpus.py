"""Which GPUs the workers of this machine may use, told without torch."""

import os
import subprocess
from pathlib import Path

SMI_SECONDS = 10.0


def visible_gpus() -> list[str]:
    """One value of CUDA_VISIBLE_DEVICES for each GPU; the variable itself limits them when it is set."""
    limit = os.environ.get("CUDA_VISIBLE_DEVICES")
    if limit is not None:
        ids = [part.strip() for part in limit.split(",")]
        # As CUDA reads it: the first invalid entry hides itself and all after it.
        return ids[: next((place for place, id in enumerate(ids) if id in ("", "-1")), len(ids))]
    listed = _ask("index")
    if listed is None:
        return [str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    return listed


def describe_gpus() -> list[str]:
    """Name, memory and driver of each GPU for a person to read; nothing when there is none."""
    return _ask("name,memory.total,driver_version") or []


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
