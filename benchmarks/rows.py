"""A run of a benchmark as one row of JSON, with date, machine and commit, in benchmarks/results."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_row(name: str, figures: Mapping[str, Any]) -> None:
    """Prints the figures, and adds them to the file `name`."""
    row = {"date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "machine": _machine(), "commit": _commit()}
    row |= figures
    for key, value in row.items():
        print(f"{key:<30}{value}")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / name).open("a") as file:
        file.write(json.dumps(row) + "\n")


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """The median, the 99th percentile and how many values there are; None without any."""
    if not values:
        return None
    ranked = sorted(values)
    return {
        "p50": round(ranked[len(ranked) // 2], 1),
        "p99": round(ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)], 1),
        "count": len(ranked),
    }


def _machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def _commit() -> str:
    """Short id of the checkout's commit; with a plus when something in it is changed."""
    root = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
