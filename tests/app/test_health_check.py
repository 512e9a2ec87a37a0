"""What the containers' health checks say, and what they do without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import health
from app.config import Settings
from app.main import create_app
from tests.support.http_api import served
from tests.support.processes import free_port
from worker.runtime import heartbeat


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers of this machine speak."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"zturbo-workers-{os.getuid()}"


def test_api_that_answers_is_well_and_another_is_told_of(settings: Settings) -> None:
    with served(create_app(settings), settings) as url:
        assert health.api_fault(url) is None
    fault = health.api_fault(f"http://127.0.0.1:{free_port()}")
    assert fault is not None
    assert fault.startswith("The API does not answer: ")


def test_worker_is_well_once_it_takes_requests(folder: Path) -> None:
    assert "seen: none" in (heartbeat.fault() or "")
    heartbeat.beat("gpu", "starting")
    assert "seen: gpu starting" in (heartbeat.fault() or "")
    for state in ("ready", "busy", "asleep", "waking"):
        heartbeat.beat("gpu", state)
        assert heartbeat.fault() is None
    heartbeat.end("gpu")
    assert "seen: none" in (heartbeat.fault() or "")


def test_worker_of_each_kind_has_to_be_well(folder: Path) -> None:
    heartbeat.beat("io", "ready")
    heartbeat.beat("gpu", "quarantined")
    assert "gpu quarantined, io ready" in (heartbeat.fault() or "")
    (folder / "gpu-1").write_text("ready")
    assert heartbeat.fault() is None


def test_worker_that_fell_silent_is_not_well_and_is_forgotten(folder: Path) -> None:
    heartbeat.beat("io", "ready")
    killed = folder / "io-1"
    killed.write_text("ready")
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    assert "seen: none" in (heartbeat.fault() or "")
    heartbeat.beat("gpu", "ready")
    assert [file.name for file in folder.iterdir()] == [f"gpu-{os.getpid()}"]


def test_folder_that_another_user_made_in_its_place_is_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    monkeypatch.setattr("os.getuid", lambda: folder.lstat().st_uid + 1)
    (tmp_path / f"zturbo-workers-{os.getuid()}").symlink_to(elsewhere)
    heartbeat.beat("io", "ready")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("part", ["api", "worker"])
def test_check_as_containers_run_it_imports_no_library(part: str, tmp_path: Path) -> None:
    script = (
        "import sys; from app import health; sys.argv = ['', sys.argv[1]]; status = health.main();"
        "print(sorted({'fastapi', 'redis', 'pydantic', 'typer', 'httpx'} & sys.modules.keys()), status)"
    )
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "ZTURBO_PORT": str(free_port())}
    command = [sys.executable, "-c", script, part]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["[]", "69"], done.stderr
    assert done.stderr.endswith(".\n")
