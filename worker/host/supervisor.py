"""Starts the processes of one machine, watches them, restarts what ends, and stops all of them together.

Knows nothing of what they do: a `Program` is a command with a name. One thread, one loop: it wakes when a
child ends (SIGCHLD), when a child prints, when it is told to stop, and when a restart is due.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import Popen
from types import FrameType

from worker.errors import SetupError
from worker.host import parent_death

FIRST_RESTART_SECONDS = 1.0
LONGEST_RESTART_SECONDS = 60.0
HEALTHY_SECONDS = 60.0
READY_POLL_SECONDS = 0.02
STOP_POLL_SECONDS = 0.05
LONGEST_LINE = 65_536
"""Bytes; a longer line of a child's output is cut into pieces."""


@dataclass(frozen=True)
class Program:
    """One process to keep running."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's own environment."""
    pass_fds: tuple[int, ...] = ()
    stop_seconds: float = 10.0
    """Time between SIGTERM and SIGKILL when everything stops."""
    death_signal: signal.Signals = signal.SIGKILL
    """What it gets when the supervisor itself is killed."""
    explain: Callable[[str], str] = str
    """Makes of the last line of one that ends while starting what the user is told."""
    healthy_seconds: float = HEALTHY_SECONDS
    """Having lived this long it counts as well: its next restart is again a quick one."""


class Child:
    """A program and the process that runs it now, if one does."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: Popen[bytes] | None = None
        self.pid = 0
        self.stdout = -1
        """Read end of the pipe that takes its output and its errors."""
        self.at_end = True
        """Its output was read to the end."""
        self.last_line = ""
        self.restart_at = 0.0
        """Monotonic seconds; meaningful while `process` is None."""
        self._started_at = 0.0
        self._quick_ends = 0
        self._partial = b""

    def start(self) -> None:
        self._started_at, self._partial, self.at_end = time.monotonic(), b"", False
        self.stdout, write_end = os.pipe()
        os.set_blocking(self.stdout, False)
        try:
            self.process = parent_death.spawn(
                self.program.command,
                env={**os.environ, **self.program.env},
                stdout=write_end,
                death_signal=self.program.death_signal,
                pass_fds=self.program.pass_fds,
            )
        finally:
            os.close(write_end)
        self.pid = self.process.pid

    def read(self) -> list[str]:
        """The whole lines that were printed since the last call."""
        lines: list[bytes] = []
        with suppress(BlockingIOError):
            while chunk := os.read(self.stdout, LONGEST_LINE):
                *whole, self._partial = (self._partial + chunk).split(b"\n")
                lines += whole
                if len(self._partial) >= LONGEST_LINE:
                    lines.append(self._partial)
                    self._partial = b""
            self.at_end = True
        return [line.decode(errors="replace").rstrip() for line in lines]

    def ended(self) -> int | None:
        """The exit status once the process is gone (negative: the signal that ended it), else None."""
        return None if self.process is None else self.process.poll()

    def reset(self) -> float:
        """Forget the ended process and sweep what it may have left in its group.

        Returns the seconds to wait before the next start: 1, 2, 4 to 60 while it keeps ending quickly.
        """
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self.stdout)
        self.process = None
        now = time.monotonic()
        self._quick_ends = (
            0 if now - self._started_at >= self.program.healthy_seconds else self._quick_ends + 1
        )
        delay = min(FIRST_RESTART_SECONDS * 2.0 ** max(self._quick_ends - 1, 0), LONGEST_RESTART_SECONDS)
        self.restart_at = now + delay
        return delay

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """Runs a store, and then the programs that need it, until SIGTERM, SIGINT, SIGHUP or `stop()`.

    `store` is started first and stopped last; nothing else starts before `store_ready` says yes. `say` gets
    each line of each child, `name` first. `on_end` gets the name and the process id of a child that ended by
    itself, before its restart.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        say: Callable[[str, str], None],
        store: Program | None = None,
        store_ready: Callable[[], bool] = lambda: True,
        on_end: Callable[[str, int], None] = lambda name, pid: None,
    ) -> None:
        self._store = Child(store) if store else None
        self._children = [Child(program) for program in programs]
        self._store_ready = store_ready
        self._say = say
        self._on_end = on_end
        self._selector = selectors.DefaultSelector()
        self._stop_requests = 0
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def run(self) -> None:
        """Blocks until stopped; every process is gone when it returns. To be called on the main thread.

        Raises SetupError when the store ends before it is ready.
        """
        with self._signals_wake_the_loop():
            try:
                if self._store is not None:
                    self._start(self._store)
                    self._wait_for_store(self._store)
                for child in self._children:
                    self._start(child)
                while not self._stop_requests:
                    self._wait(self._seconds_to_next_restart())
                    self._restart_what_ended()
            finally:
                self._stop_all(self._children)
                if self._store is not None:
                    self._stop_all([self._store])

    def stop(self) -> None:
        """Ask `run` to stop everything; a second call hurries the children. Safe in a signal handler."""
        self._stop_requests += 1
        os.write(self._wake_write, b"\0")

    def pids(self) -> dict[str, int]:
        """The processes that run now, by program name."""
        return {child.program.name: child.pid for child in self._all() if child.process}

    def _all(self) -> list[Child]:
        return [*([self._store] if self._store else []), *self._children]

    def _wait_for_store(self, store: Child) -> None:
        while not self._stop_requests and not self._store_ready():
            self._wait(READY_POLL_SECONDS)
            status = store.ended()
            if status is not None:
                self._drain(store)
                raise SetupError(
                    f"{store.program.command[0]} ended with status {status} while starting: "
                    + store.program.explain(store.last_line)
                )

    def _start(self, child: Child) -> None:
        child.start()
        self._selector.register(child.stdout, selectors.EVENT_READ, child)

    def _restart_what_ended(self) -> None:
        for child in self._all():
            status = child.ended()
            if status is not None:
                delay = self._reset(child)
                how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended, status {status}"
                self._say(child.program.name, f"{how}; starting again in {delay:.0f} s")
                self._on_end(child.program.name, child.pid)
            elif child.process is None and time.monotonic() >= child.restart_at:
                self._start(child)

    def _seconds_to_next_restart(self) -> float | None:
        due = [child.restart_at for child in self._all() if child.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _wait(self, seconds: float | None) -> None:
        """Sleep until something happens, at most `seconds`, and pass on what the children printed."""
        for key, _ in self._selector.select(seconds):
            if isinstance(key.data, Child):
                self._drain(key.data)
            else:
                with suppress(BlockingIOError):
                    os.read(key.fd, 512)

    def _drain(self, child: Child) -> None:
        for line in child.read():
            child.last_line = line
            self._say(child.program.name, line)
        if child.at_end:
            self._unwatch(child)

    def _unwatch(self, child: Child) -> None:
        with suppress(KeyError):
            self._selector.unregister(child.stdout)

    def _reset(self, child: Child) -> float:
        self._drain(child)
        self._unwatch(child)
        return child.reset()

    def _stop_all(self, children: Sequence[Child]) -> None:
        """SIGTERM, wait as long as each may take, then SIGKILL."""
        begun, sent = time.monotonic(), 0
        while running := [child for child in children if child.process is not None]:
            wanted = max(1, self._stop_requests)
            for child in running:
                if child.ended() is not None:
                    self._reset(child)
                elif time.monotonic() - begun > child.program.stop_seconds:
                    child.signal(signal.SIGKILL)
                elif wanted > sent:
                    child.signal(signal.SIGTERM)
            sent = wanted
            self._wait(STOP_POLL_SECONDS)

    @contextmanager
    def _signals_wake_the_loop(self) -> Iterator[None]:
        before_fd = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        stopping = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in stopping}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)
