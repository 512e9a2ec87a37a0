"""`zturbo serve` as a user starts it: a process of its own, looked at and stopped from outside."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.processes import wait_for

START_SECONDS = 240.0
STOP_SECONDS = 45.0


class ServeProcess:
    """Started at once, on a free port; `wait_until_ready` gives its base URL."""

    def __init__(
        self, data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None, model: str = "demo"
    ) -> None:
        self.lines: list[str] = []
        # The settings of whoever runs the tests must not reach the server.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ZTURBO_")}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "app", "serve", "--model", model),
                *("--port", "0", "--data-dir", str(data_dir), *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # On a model this small a second thread only waits for a free core.
            env={**clean, "OMP_NUM_THREADS": "1", **(env or {})},
            cwd=data_dir.parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_until_ready(self) -> str:
        """Its base URL."""
        with suppress(AssertionError):
            wait_for(lambda: self._ready_url or self.process.poll() is not None, START_SECONDS)
        assert self._ready_url, self.output
        return self._ready_url

    @property
    def _ready_url(self) -> str:
        return next((line.removeprefix("ready: ") for line in self.lines if line.startswith("ready: ")), "")

    def descendants(self) -> dict[str, int]:
        """Process ids of everything it started, by what it is: redis, api, io, gpu."""
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                words = child.cmdline()
            except psutil.Error:
                # It has just ended.
                continue
            if "redis-server" in words[0] or "valkey-server" in words[0]:
                found["redis"] = child.pid
            elif "api" in words:
                found["api"] = child.pid
            elif "worker" in words:
                found[words[words.index("worker") + 1]] = child.pid
        return found

    def stop(self) -> int:
        """Ctrl-C and SIGTERM come to the same; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            # Seen when the test fails.
            print(*(line for line in self.lines if "zturbo.access" not in line), sep="\n")
            if self.process.stdout is not None:
                self.process.stdout.close()
