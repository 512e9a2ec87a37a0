"""A run of a benchmark: its options, and its figures as a row of JSON, with date, machine and commit."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def option_parser(name: str, doc: str, check: str = "") -> argparse.ArgumentParser:
    """The options of `python -m benchmarks.NAME`, with the first line of its docstring as help.

    `check` says when the exit status is 1 with `--check`; empty: there is no such option.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.partition("\n")[0])
    if check:
        parser.add_argument("--check", action="store_true", help=f"exit 1 {check}")
    return parser


def write_row(
    name: str, figures: Mapping[str, Any], options: argparse.Namespace | None = None, *, told: bool = True
) -> None:
    """Adds options and figures to the file `name` of benchmarks/results; printed, if they are to be told."""
    row = {"date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "machine": _machine(), "commit": _commit()}
    row |= {
        option: value for option, value in vars(options or argparse.Namespace()).items() if option != "check"
    }
    row |= figures
    for key, value in row.items() if told else ():
        print(f"{key:<30}{value}")
    # OUT is a folder that is brought back from a machine that is lent.
    for folder in (RESULTS, *(Path(out) for out in [os.environ.get("OUT")] if out)):
        folder.mkdir(exist_ok=True)
        with (folder / name).open("a") as file:
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
