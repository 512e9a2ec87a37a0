"""A command that `parent_death` started ends with the process that started it, however that one ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import alive, wait_for
from worker.host import parent_death

WATCHERS = [pytest.param(True, id="watcher")]
if sys.platform.startswith("linux"):
    WATCHERS.append(pytest.param(False, id="parent-death-signal"))

PARENT = """
import signal, sys, time
from worker.host import parent_death
child = parent_death.spawn(
    [sys.executable, "-c", sys.argv[1]], env={}, stdout=1, watcher=sys.argv[2] == "True",
    death_signal=signal.Signals(int(sys.argv[3])),
)
sys.exit(child.wait() if len(sys.argv) > 4 else time.sleep(60))
"""
SLEEPER = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"


def start_parent(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("watcher", WATCHERS)
def test_command_is_gone_after_kill_9_of_its_parent(watcher: bool) -> None:
    with start_parent(SLEEPER, watcher, int(signal.SIGKILL)) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive(pid), seconds=5)


@pytest.mark.parametrize("watcher", WATCHERS)
def test_command_gets_the_death_signal_that_was_asked_for(watcher: bool, tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = (
        "import os, pathlib, signal, sys, time\n"
        f"def bye(*_): pathlib.Path({str(note)!r}).write_text('closed'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, bye)\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    with start_parent(script, watcher, int(signal.SIGTERM)) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive(pid), seconds=5)
    assert note.read_text() == "closed"


@pytest.mark.parametrize("watcher", WATCHERS)
def test_exit_status_of_the_command_is_seen_by_the_parent(watcher: bool) -> None:
    with start_parent("import sys; sys.exit(7)", watcher, int(signal.SIGKILL), "wait") as parent:
        assert parent.wait(10) == 7


@pytest.mark.parametrize("watcher", WATCHERS)
def test_sigterm_reaches_the_command(watcher: bool) -> None:
    read_end, write_end = os.pipe()
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('up', flush=True); time.sleep(60)"
    )
    process = parent_death.spawn([sys.executable, "-c", script], env={}, stdout=write_end, watcher=watcher)
    os.close(write_end)
    with os.fdopen(read_end) as output:
        assert output.readline() == "up\n"
        process.terminate()
        assert process.wait(10) == 3


@pytest.mark.parametrize("watcher", WATCHERS)
def test_passed_descriptors_reach_the_command(watcher: bool, tmp_path: Path) -> None:
    with (tmp_path / "shared").open("w+") as shared:
        script = f"import os; os.write({shared.fileno()}, b'hello')"
        process = parent_death.spawn(
            [sys.executable, "-c", script],
            env={},
            stdout=shared.fileno(),
            pass_fds=[shared.fileno()],
            watcher=watcher,
        )
        assert process.wait(10) == 0
        shared.seek(0)
        assert shared.read() == "hello"


@pytest.mark.parametrize("watcher", WATCHERS)
def test_command_knows_the_process_id_that_its_parent_sees(watcher: bool, tmp_path: Path) -> None:
    script = "from worker.host import parent_death; print(parent_death.known_pid())"
    with (tmp_path / "said").open("w") as said:
        # As under a server that is itself kept.
        env = {**os.environ, parent_death.WATCHER: "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", script]
        child = parent_death.spawn(command, env=env, stdout=said.fileno(), watcher=watcher)
        assert child.wait(10) == 0
    assert (tmp_path / "said").read_text() == f"{child.pid}\n"
