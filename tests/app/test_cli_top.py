"""`zturbo top` on a terminal, in a pipe, and while the server is away."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
import typer
from typer.testing import CliRunner

from app.cli import top
from app.cli.exits import Exit
from app.config import Settings
from app.main import create_app
from tests.support.http_api import WorkerHands, served
from worker.queue.registry import WorkerInfo

GPU = WorkerInfo(
    "gpu-box-1", "gpu", "busy", "z-image-turbo", "cuda", memory_used=24 * 2**30, memory_total=80 * 2**30
)
BROKEN = WorkerInfo("gpu-box-2", "gpu", "quarantined", detail="GPU 1 is left alone for five minutes.")


@pytest.fixture
def base_url(settings: Settings, hands: WorkerHands) -> Iterator[str]:
    hands.register(GPU, BROKEN)
    with served(create_app(settings), settings) as url:
        yield url


@pytest.fixture
def cli() -> typer.Typer:
    cli = typer.Typer()
    top.register(cli)
    return cli


def test_in_a_pipe_it_looks_once(base_url: str, cli: typer.Typer) -> None:
    ran = CliRunner(env={"COLUMNS": "120"}).invoke(cli, ["--base-url", base_url])
    assert ran.exit_code == 0, ran.output
    assert "0 in line, 0 in hand" in ran.stdout
    assert "0 requests finished in the last minute" in ran.stdout
    assert "███░░░░░░░ 24.0 of 80.0 GiB" in ran.stdout
    assert "gpu-box-2: GPU 1 is left alone for five minutes." in ran.stdout


def test_json_is_the_server_s_own(base_url: str, cli: typer.Typer) -> None:
    ran = CliRunner().invoke(cli, ["--base-url", base_url, "--json"])
    assert [worker["id"] for worker in json.loads(ran.stdout)["workers"]] == ["gpu-box-1", "gpu-box-2"]


def test_server_that_is_not_there_is_told(cli: typer.Typer) -> None:
    assert CliRunner().invoke(cli, ["--base-url", "http://127.0.0.1:9"]).exit_code == Exit.UNAVAILABLE


def test_on_a_terminal_it_goes_on_until_ctrl_c(settings: Settings, base_url: str, hands: WorkerHands) -> None:
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "app", "top", "--base-url", base_url, "--interval", "0.1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    # In a session of its own, whose terminal turns the Ctrl-C below into the signal.
    with subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, *command],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(inside)
        seen = _read_until(terminal, "gpu-box-1")
        hands.register(WorkerInfo("io-box-3", "io", "ready"))
        seen += _read_until(terminal, "io-box-3")
        os.write(terminal, b"\x03")
        with suppress(OSError):
            while os.read(terminal, 4096):
                pass
        assert process.wait(30) == 0, seen
    os.close(terminal)


OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def _read_until(terminal: int, words: str) -> str:
    seen = ""
    while words not in seen:
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
