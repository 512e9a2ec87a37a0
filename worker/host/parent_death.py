"""Commands that end when the process that started them is gone, even by kill -9.

`spawn` is what the supervisor calls. It runs this very file as a small script between itself and the command:

    parent_death.py become SIGNAL PARENT COMMAND...   Linux: asks the kernel for SIGNAL on the parent's death,
                                                      then becomes the command, so no process is added
    parent_death.py watch SIGNAL PIPE COMMAND...      elsewhere: stays beside the command and watches a pipe
                                                      whose other end only the parent holds

A script rather than `preexec_fn`: Python code between fork and exec may deadlock when threads run. Standard
library only, because the script runs isolated from every installed package.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
WATCHER = "PARENT_DEATH_WATCHER"
"""Environment variable of a command that has a watcher: the watcher's process id."""
WATCHER_GRACE_SECONDS = 5.0
"""Time between the signal and SIGKILL when a watcher ends its command."""

_pipe: tuple[int, int] | None = None
"""Read and write end of the pipe that all watchers watch; the write end closes when this process is gone."""


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    stdout: int,
    death_signal: signal.Signals = signal.SIGKILL,
    pass_fds: Sequence[int] = (),
    watcher: bool = not sys.platform.startswith("linux"),
) -> "subprocess.Popen[bytes]":
    """Start `command` in a process group of its own, its output and its errors into the descriptor `stdout`.

    Call it from a thread that lives as long as the process: Linux counts the end of the starting *thread* as
    the parent's death. `death_signal` is what the command gets when this process is gone.
    """
    script = [sys.executable, "-I", "-S", __file__]
    if watcher:
        pipe = _pipe_read_end()
        argv = [*script, "watch", str(int(death_signal)), str(pipe), *command]
        pass_fds = (*pass_fds, pipe)
    else:
        argv = [*script, "become", str(int(death_signal)), str(os.getpid()), *command]
    return subprocess.Popen(
        argv,
        env={name: value for name, value in env.items() if name != WATCHER},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        pass_fds=tuple(pass_fds),
        # Ctrl-C in a terminal goes to the whole foreground group; it is for the supervisor alone to pass on.
        process_group=0,
    )


def known_pid() -> int:
    """The process id by which whoever spawned this process knows it: its watcher's, if it has one."""
    return int(os.environ.get(WATCHER, os.getpid()))


def _pipe_read_end() -> int:
    global _pipe
    if _pipe is None:
        _pipe = os.pipe()
    return _pipe[0]


def become(death_signal: int, parent: int, command: Sequence[str]) -> None:
    """Turn this process into `command`, which gets `death_signal` when `parent` is gone. Linux only."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the call above; then there is nobody left to be told of.
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], list(command))  # noqa: S606  no shell is wanted


def watch(death_signal: int, pipe: int, command: Sequence[str]) -> int:
    """Run `command` beside this process and return its exit status.

    The command is ended when the other end of `pipe` is closed.
    """
    os.set_inheritable(pipe, False)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    # close_fds=False: what was passed to the watcher (a listening socket, a lock) is meant for the command.
    child = subprocess.Popen(command, close_fds=False, env=os.environ | {WATCHER: str(os.getpid())})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    while child.poll() is None:
        readable, _, _ = select.select([pipe, wake_read], [], [], 1.0)
        if wake_read in readable:
            os.read(wake_read, 512)
        if pipe in readable:
            _end(child, death_signal)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _end(child: "subprocess.Popen[bytes]", death_signal: int) -> None:
    child.send_signal(death_signal)
    with suppress(subprocess.TimeoutExpired):
        child.wait(WATCHER_GRACE_SECONDS)
        return
    child.kill()


if __name__ == "__main__":
    mode, signal_number, watched, *rest = sys.argv[1:]
    if mode == "become":
        become(int(signal_number), int(watched), rest)
    else:
        sys.exit(watch(int(signal_number), int(watched), rest))
