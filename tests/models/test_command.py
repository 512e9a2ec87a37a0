"""Commands in sentences run as they are pasted: where `zturbo` is on the PATH, and where it is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import command
from models.command import install, zturbo


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `zturbo` of an environment in a folder, which says that it ran; nothing else is on the PATH."""
    own = tmp_path / "a checkout" / ".venv" / "bin" / "zturbo"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\necho own $1\n")
    own.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own.with_name("python")))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    return own


def pasted(command: str) -> str:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.strip()


def test_on_the_path_it_is_called_by_its_name(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As `uv tool install` and pipx do it.
    (tmp_path / "zturbo").symlink_to(own)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert zturbo() == "zturbo"
    assert pasted(f"{zturbo()} pull") == "own pull"


def test_another_one_on_the_path_is_not_taken_for_it(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zturbo").write_bytes(own.read_bytes())
    (tmp_path / "zturbo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert zturbo() == f"'{own}'"


def test_uv_run_s_own_path_does_not_count(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(own.parent), prepend=os.pathsep)
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert zturbo() == f"'{own}'"


@pytest.mark.parametrize(
    ("folder", "home", "written"),
    [
        ("a checkout", ".", ".venv/bin/zturbo"),
        (".", "a checkout", "~/.venv/bin/zturbo"),
        (".", ".", "~/'a checkout/.venv/bin/zturbo'"),
        (".", "elsewhere", "'{own}'"),
    ],
)
def test_elsewhere_it_is_called_by_a_path_that_can_be_pasted(
    folder: str, home: str, written: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.setenv("HOME", str((tmp_path / home).resolve()))
    assert zturbo() == written.format(own=own)
    assert pasted(f"{zturbo()} pull") == "own pull"


def test_packages_of_an_extra_go_into_the_environment_that_runs(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    installer = own.parent / "uv"
    installer.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    installer.chmod(0o755)
    said = pasted(f"PATH='{own.parent}':$PATH; {install('s3')}").splitlines()
    python = str(own.with_name("python"))
    assert said == ["pip", "install", "--python", python, "obstore>=0.10"]
