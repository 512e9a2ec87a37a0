"""The memory of a process and all that it starts, under a limit: a control group's where one may be made."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

GROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
"""The folder for a group and the name of its limit, in the first and the second version of control groups."""

SAMPLE_SECONDS = 0.2


class Memory(NamedTuple):
    """Bytes of one process: its own, and pages of files, which the kernel may drop and read again."""

    private: int
    mapped: int


class Sample(NamedTuple):
    at: float
    """Unix seconds."""
    memory: Memory


@contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """The file that puts a process under the limit by its id; None where no group may be made."""
    for folder, name in GROUPS:
        group = folder / f"zturbo-full-size-{os.getpid()}"
        try:
            group.mkdir()
            # "r+" makes no file: a folder that is no control group has none of this name.
            with (group / name).open("r+") as file:
                file.write(str(limit))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        try:
            yield group / "cgroup.procs"
        finally:
            _remove(group)
        return
    yield None


def _remove(group: Path) -> None:
    """Once its last process has gone."""
    for _ in range(100):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.1)


class Watch:
    """Samples the largest process below one, ten times in two seconds; ends all of them beyond the limit."""

    def __init__(self, pid: int, limit: int) -> None:
        self.samples: list[Sample] = []
        self.killed = False
        self._parent = psutil.Process(pid)
        self._limit = limit
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def peak(self, begun: float, ended: float) -> Memory:
        """The most of each between two moments (Unix seconds)."""
        within = [sample.memory for sample in self.samples if begun <= sample.at <= ended]
        return Memory(
            max((memory.private for memory in within), default=0),
            max((memory.mapped for memory in within), default=0),
        )

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            with suppress(psutil.Error, OSError):
                everyone = [memory_of(child.pid) for child in self._parent.children(recursive=True)]
                self.samples.append(Sample(time.time(), max(everyone, default=Memory(0, 0))))
                if sum(memory.private for memory in everyone) > self._limit:
                    # Before the machine is out of memory and stops.
                    self.killed = True
                    for child in self._parent.children(recursive=True):
                        child.kill()


def memory_of(pid: int) -> Memory:
    fields = {
        name: 1024 * int(rest.split()[0])
        for name, _, rest in (
            line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        if name.startswith("Rss")
    }
    # A process that has ended and is waited for has none.
    return Memory(fields.get("RssAnon", 0), fields.get("RssFile", 0) + fields.get("RssShmem", 0))
