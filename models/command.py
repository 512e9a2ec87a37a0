"""What a sentence tells a person to paste: commands that work on this machine as they stand."""

import os
import shutil
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from shlex import quote


def zturbo() -> str:
    """How the `zturbo` that runs here is started: by its name where that is it, else by its path.

    `uv run` puts its environment on the PATH of what it runs alone: the name is no good to who called it.
    """
    own = Path(sys.executable).with_name("zturbo")
    named = None if "UV_RUN_RECURSION_DEPTH" in os.environ else shutil.which("zturbo")
    return "zturbo" if not own.exists() or (named and own.samefile(named)) else _written(own)


def install(extra: str) -> str:
    """The command that adds the packages of one of our extras to the environment that runs here."""
    python = _written(Path(sys.executable))
    installer = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    needed = (line.partition(";") for line in requires("zturbo") or ())
    return " ".join([installer, *(quote(name.strip()) for name, _, when in needed if f"'{extra}'" in when)])


def _written(path: Path) -> str:
    """A path for a shell: `.venv/bin/…` in a checkout's folder, and `~/…`, which names no user, at home."""
    if Path.cwd() == path.parents[2]:
        return quote("/".join(path.parts[-3:]))
    home = os.environ.get("HOME", "")
    return f"~/{quote(str(path.relative_to(home)))}" if path.is_relative_to(home) else quote(str(path))
