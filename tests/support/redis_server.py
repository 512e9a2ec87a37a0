"""A real Redis (or Valkey) for tests, on a Unix socket in a folder of its own."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import redis

from tests.support.processes import wait_for
from worker.host.embedded_redis import find_server


class ServerEnded(Exception):
    """The server ended before it answered; its own words are the message."""


class RedisServer:
    """One server process. It keeps its data over `kill` and `start`, as a production server does."""

    def __init__(
        self,
        *options: str,
        password: str | None = None,
        aof: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """`options` go on the server's command line; `aof`: an append-only file to begin with.

        Raises ServerEnded where the server does not take them.
        """
        self._options, self._password, self._env = options, password, {**os.environ, **(env or {})}
        # Not pytest's own folder: a socket's path may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="zturbo-test-redis-"))
        if aof is not None:
            # Under the name of Redis before 7, which later ones take over.
            shutil.copy(aof, self.folder / "appendonly.aof")
        self.url = f"unix://{self.folder}/redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [
            *(str(find_server().path), "--port", "0", "--unixsocket", f"{self.folder}/redis.sock"),
            *("--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
            *self._options,
        ]
        log = self.folder / "log"
        with log.open("wb") as output:
            self._process = process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=self._env
            )
        try:
            wait_for(lambda: self._answers() or process.poll() is not None)
            if process.poll() is not None:
                raise ServerEnded(log.read_text())
        except BaseException:
            self.remove()
            raise

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, password=self._password) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def kill(self) -> None:
        """As a power cut to the process: kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
