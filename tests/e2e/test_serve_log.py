"""A log that cannot be written: `zturbo serve` goes on without it, and ends when it is told to."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import data_uri, photograph, run
from tests.support.processes import free_port, wait_for

BODY = {
    "prompt": "a fox",
    "image_url": data_uri(photograph("astronaut")),
    "loras": [],
    "num_inference_steps": 1,
}
START_SECONDS = 120.0
CALLS, MANY = 50, 1000
"""Each is a line of the log of some 100 bytes; many are more than a pipe holds."""


@contextmanager
def served(data_dir: Path, log: int) -> Iterator[str]:
    """The base URL of a server whose output goes to the descriptor `log`; it must end in good order."""
    port = free_port()
    command = [sys.executable, "-m", "app", "serve", "--model", "demo", "--io-workers", "1"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--data-dir", str(data_dir)],
        stdout=log,
        stderr=log,
        env={name: value for name, value in os.environ.items() if not name.startswith("ZTURBO_")},
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/healthz").is_success
        return False

    try:
        # Seldom: each asks with a new client.
        wait_for(answers, START_SECONDS, pause=0.2)
        yield url
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(45) == 0
        assert not [child for child in children if child.is_running()]
    finally:
        process.kill()
        process.wait()


def call(url: str, calls: int = CALLS) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        for _ in range(calls):
            assert client.get("/v1/requests/none/result").status_code == 404


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    with suppress(OSError):
        while True:
            os.write(fd, b"." * 4096)
    os.set_blocking(fd, True)


def test_pipe_that_nobody_reads(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    fill(write_end)
    with served(tmp_path, write_end) as url:
        call(url, MANY)
        # Through every part: none of them may wait for its log.
        run(url, BODY)
    os.close(write_end)
    os.close(read_end)


def test_pipe_that_is_closed(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with served(tmp_path, write_end) as url:
        call(url)
    os.close(write_end)


def test_disk_that_was_full_is_told_how_many_lines_it_lacks(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount here to make a small disk with")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a disk of its own")
    try:
        with (disk / "log").open("ab") as log, served(tmp_path / "data", log.fileno()) as url:
            with (disk / "filling").open("wb") as filling:
                fill(filling.fileno())
            call(url)
            (disk / "filling").unlink()
            httpx.get(f"{url}/v1/requests/none/result")
            wait_for(lambda: "lines of this log could not be written here" in (disk / "log").read_text())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
