"""A Redis of a benchmark's own, run as `serve` runs its own."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.host import parent_death
from worker.host.embedded_redis import EmbeddedRedis, Fsync, find_server, held

START_SECONDS = 30.0


@contextmanager
def running_store(folder: Path, appendfsync: Fsync = "always") -> Iterator[EmbeddedRedis]:
    with held(folder / "redis") as lock_fd:
        store = EmbeddedRedis(find_server(), folder / "redis", lock_fd, appendfsync)
        program = store.program
        process = parent_death.spawn(
            program.command, env=os.environ, stdout=subprocess.DEVNULL, pass_fds=program.pass_fds
        )
        try:
            end = time.monotonic() + START_SECONDS
            while not store.ready():
                if time.monotonic() > end:
                    raise TimeoutError("Redis did not start")
                time.sleep(0.02)
            yield store
        finally:
            process.terminate()
            process.wait()
