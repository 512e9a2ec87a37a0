"""What `make` would run, which depends on where it says it."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def download(stderr: int) -> str:
    """The command that downloads, where this is standard error."""
    # -n runs nothing, and -B has everything be missing.
    command = ["make", "-n", "-B", "demo"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=True)
    [line] = (line for line in ran.stdout.splitlines() if "pip sync" in line)
    return line


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_download_shows_its_progress_on_a_terminal_alone() -> None:
    terminal, inside = pty.openpty()
    try:
        assert "--quiet" not in download(inside)
    finally:
        os.close(inside)
        os.close(terminal)
    assert "--quiet" in download(subprocess.DEVNULL)
