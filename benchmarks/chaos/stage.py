"""What is killed: a whole server under our own supervisor, every process real but for its engines."""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from app.cli.programs import declare_dead, programs
from app.cli.serve import listen
from app.config import Settings
from benchmarks.faults import Faults
from worker.host.embedded_redis import EmbeddedRedis, Fsync, find_server, held
from worker.host.supervisor import Program, Supervisor

IO_WORKERS = 2
GPU_WORKERS = 2


@dataclass
class Death:
    """One process killed by us."""

    name: str
    pid: int
    at: float
    """Monotonic seconds."""
    handed_on: float | None = None
    """Seconds until the supervisor had seen it and given its requests free."""


@dataclass
class Server:
    """A running server, for the thread that torments it."""

    url: str
    redis_url: str
    redis_name: str
    settings: Settings
    supervisor: Supervisor
    deaths: list[Death] = field(default_factory=list)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> bool:
        """Ends a part; False when it is down already."""
        pid = self.supervisor.pids().get(name)
        if pid is None:
            return False
        self.deaths.append(Death(name, pid, time.monotonic()))
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def parts(self, kind: str) -> list[str]:
        """Names of what runs now and is of this kind: io, gpu, api, redis."""
        return [name for name in self.supervisor.pids() if name.partition("-")[0] == kind]


@contextmanager
def staged(
    folder: Path, fsync: Fsync, slow_fsync: float, lease_seconds: float, queue: int
) -> Iterator[Server]:
    """A server that `supervisor.run()` starts, to be called on the main thread.

    Its data is in `folder/data`, its output goes to `folder/log`. Each fsync of its Redis takes `slow_fsync`
    seconds longer.
    """
    data_dir, log = folder / "data", folder / "log"
    key = secrets.token_hex(16)
    settings = Settings(
        _env_file=None,
        data_dir=data_dir,
        model="demo",
        port=0,
        io_workers=IO_WORKERS,
        lease_seconds=lease_seconds,
        max_queue=queue,
        api_keys=f"chaos:{key}",
    )
    with (
        held(data_dir / "redis") as lock_fd,
        listen(settings) as listener,
        log.open("w") as output,
    ):
        store = EmbeddedRedis(find_server(), data_dir / "redis", lock_fd, fsync)
        env = {
            "ZTURBO_LEASE_SECONDS": str(lease_seconds),
            "ZTURBO_MAX_QUEUE": str(queue),
            "ZTURBO_API_KEYS": settings.api_keys,
        }
        faults: dict[str, str] = {}
        if slow_fsync:
            disk = Faults(folder)
            disk.delay_fsync(slow_fsync)
            faults = disk.env
        server: Server | None = None

        def on_end(name: str, pid: int) -> None:
            declare_dead(settings, store.url, name, pid)
            for death in server.deaths if server else ():
                if death.pid == pid and death.handed_on is None:
                    death.handed_on = time.monotonic() - death.at

        supervisor = Supervisor(
            [_prepared(program, env) for program in _parts(programs(settings, "demo", store.url, listener))],
            say=partial(_write, output.write),
            store=_prepared(store.program, faults),
            store_ready=store.ready,
            on_end=on_end,
        )
        host, port = listener.getsockname()[:2]
        server = Server(f"http://{host}:{port}", store.url, str(store.binary.name), settings, supervisor)
        yield server


def _parts(found: list[Program]) -> Iterator[Program]:
    """As `serve` runs them, but with engines that sleep."""
    for program in found:
        if not program.name.startswith("gpu"):
            yield program
    (env,) = {tuple(program.env.items()) for program in found if program.name == "api"}
    for number in range(GPU_WORKERS):
        yield Program(
            f"gpu-{number}",
            (sys.executable, "-P", "-m", "benchmarks.chaos.worker"),
            env=dict(env),
            stop_seconds=30,
        )


def _prepared(program: Program, env: dict[str, str]) -> Program:
    # Killed from outside, not failing by itself: what the back-off is for does not apply.
    return replace(program, env={**program.env, **env}, healthy_seconds=0.0)


def _write(write: Callable[[str], object], name: str, line: str) -> None:
    write(f"{time.monotonic():.3f} {name:>6} | {line}\n")
