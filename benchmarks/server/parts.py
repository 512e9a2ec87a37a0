"""The processes of a benchmark, started as `serve` does; what each costs is read from outside."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from app.cli.programs import programs
from app.cli.serve import listen
from app.config import Settings
from worker.host import parent_death
from worker.host.supervisor import Program

START_SECONDS = 60.0


@dataclass(frozen=True)
class Part:
    """A running process."""

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Processor seconds that the process has used, threads that have ended included (Linux)."""
        # The clock of another process, as clock_getcpuclockid(3) makes its number: psutil tells hundredths.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory(self) -> int:
        """Bytes of its own, shared pages left out."""
        return int(self.process.memory_full_info().uss)


@contextmanager
def running_api(settings: Settings, redis_url: str, log: Path) -> Iterator[Part]:
    with listen(settings) as listener:
        (program,) = [part for part in programs(settings, "demo", redis_url, listener) if part.name == "api"]
        with _running(program, _limits(settings), log) as process:
            yield _answering(process, listener, "/healthz")


@contextmanager
def running_bare(settings: Settings, redis_url: str, log: Path) -> Iterator[Part]:
    """What ours is compared with: benchmarks.server.bare under the same uvicorn."""
    with listen(settings) as listener:
        command = (sys.executable, "-m", "benchmarks.server.bare", str(listener.fileno()), redis_url)
        with _running(Program("bare", command, pass_fds=(listener.fileno(),)), {}, log) as process:
            yield _answering(process, listener, "/")


@contextmanager
def running_all(settings: Settings, redis_url: str, log: Path) -> Iterator[Part]:
    """The API, once a picture can be made: io workers, and a gpu worker whose engine sleeps."""
    with listen(settings) as listener, ExitStack() as opened:
        found = [part for part in programs(settings, "demo", redis_url, listener) if part.name[:3] != "gpu"]
        env = found[0].env
        found.append(Program("gpu", (sys.executable, "-m", "benchmarks.server.sleeper"), env=env))
        for part in found:
            process = opened.enter_context(_running(part, _limits(settings), log))
            if part.name == "api":
                api = process
        yield _answering(api, listener, "/readyz")


@contextmanager
def _running(program: Program, env: Mapping[str, str], log: Path) -> Iterator[psutil.Process]:
    with log.open("ab") as output:
        process = parent_death.spawn(
            program.command,
            env={**os.environ, **program.env, **env},
            stdout=output.fileno(),
            pass_fds=program.pass_fds,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(program.stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _limits(settings: Settings) -> dict[str, str]:
    """Settings of a benchmark that `programs` leaves to the environment."""
    return {"ZTURBO_MAX_QUEUE": str(settings.max_queue), "ZTURBO_ALLOW_HOSTS": settings.allow_hosts}


def _answering(process: psutil.Process, listener: socket.socket, path: str) -> Part:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.is_running():
        try:
            if httpx.get(url + path, trust_env=False).status_code in (200, 405):
                return Part(url, process)
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{' '.join(process.cmdline())} does not answer")
