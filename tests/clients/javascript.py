"""Public JavaScript clients, run by node from where `npm install --prefix tests/clients` puts them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SECONDS = 60


def needs(package: str) -> None:
    """Skips the test where there is no node, or not this package."""
    if shutil.which("node") is None:
        pytest.skip("no node on the PATH")
    if not (HERE / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is not installed: npm install --prefix tests/clients")


def run(script: str, *arguments: str, **env: str) -> dict[str, Any]:
    """What the script prints, as JSON."""
    done = subprocess.run(
        ["node", str(HERE / script), *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
