"""The supervisor against real processes."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import alive, wait_for
from worker.errors import SetupError
from worker.host import supervisor
from worker.host.supervisor import Program, Supervisor

FOREVER = "import time; print('up', flush=True); time.sleep(60)"


def python(name: str, script: str, **options: object) -> Program:
    return Program(name, (sys.executable, "-c", script), **options)  # type: ignore[arg-type]


class Transcript:
    """Every line that the children printed, as it came."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for said_by, line in self.lines if said_by == name]


def run_beside(watcher: Supervisor, act: Callable[[], object]) -> None:
    """`watcher.run()` on this thread, which it needs, `act` on another; stopped when `act` is through."""
    faults: list[BaseException] = []

    def actor() -> None:
        try:
            act()
        except BaseException as fault:
            faults.append(fault)
        finally:
            watcher.stop()

    thread = threading.Thread(target=actor)
    thread.start()
    try:
        watcher.run()
    finally:
        thread.join()
    if faults:
        raise faults[0]


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_RESTART_SECONDS", 0.05)


def test_lines_of_every_child_come_with_its_name() -> None:
    said = Transcript()
    watcher = Supervisor([python("a", FOREVER), python("b", FOREVER)], say=said)
    run_beside(watcher, lambda: wait_for(lambda: said.of("a") and said.of("b")))
    assert sorted(said.lines[:2]) == [("a", "up"), ("b", "up")]


def test_all_children_are_gone_after_stop() -> None:
    said = Transcript()
    watcher = Supervisor([python("a", FOREVER), python("b", FOREVER)], say=said)
    pids: list[int] = []

    def act() -> None:
        wait_for(lambda: said.of("a") and said.of("b"))
        pids.extend(watcher.pids().values())

    run_beside(watcher, act)
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)
    assert watcher.pids() == {}


@pytest.mark.usefixtures("quick_restarts")
def test_killed_child_is_seen_at_once_and_restarted() -> None:
    said, ended = Transcript(), list[str]()
    watcher = Supervisor([python("a", FOREVER)], say=said, on_end=lambda name, pid: ended.append(name))
    seen_after: list[float] = []

    def act() -> None:
        wait_for(lambda: said.of("a"))
        first = watcher.pids()["a"]
        begun = time.monotonic()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: ended)
        seen_after.append(time.monotonic() - begun)
        wait_for(lambda: said.of("a").count("up") == 2)
        assert watcher.pids()["a"] != first

    run_beside(watcher, act)
    assert ended == ["a"]
    assert seen_after[0] < 1
    assert any("killed by SIGKILL; starting again in" in line for line in said.of("a"))


@pytest.mark.usefixtures("quick_restarts")
def test_child_that_keeps_ending_is_restarted_ever_more_slowly() -> None:
    said = Transcript()
    watcher = Supervisor([python("a", "print('up')")], say=said)
    starts: list[float] = []

    def act() -> None:
        for count in range(1, 5):
            wait_for(lambda count=count: said.of("a").count("up") >= count)
            starts.append(time.monotonic())

    run_beside(watcher, act)
    # 1, 2 and 4 times the first wait; a busy machine may notice a start late, so not to the millisecond.
    assert starts[3] - starts[0] > 6 * 0.05


def test_child_that_ignores_sigterm_is_killed_when_its_time_is_up() -> None:
    said = Transcript()
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + FOREVER
    watcher = Supervisor([python("a", stubborn, stop_seconds=0.3)], say=said)
    pids: list[int] = []

    def act() -> None:
        wait_for(lambda: said.of("a"))
        pids.extend(watcher.pids().values())

    run_beside(watcher, act)
    assert not alive(pids[0])


def test_second_stop_sends_a_second_sigterm() -> None:
    said = Transcript()
    draining = (
        "import signal, sys, time\n"
        "seen = []\n"
        "def term(*_):\n"
        "    seen.append(1); print('term', flush=True)\n"
        "    if len(seen) == 2: sys.exit()\n"
        "signal.signal(signal.SIGTERM, term)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(1)"
    )
    watcher = Supervisor([python("a", draining, stop_seconds=30)], say=said)

    def act() -> None:
        wait_for(lambda: said.of("a"))
        watcher.stop()
        wait_for(lambda: "term" in said.of("a"))

    run_beside(watcher, act)
    assert said.of("a") == ["up", "term", "term"]


def test_store_starts_first_and_stops_last(tmp_path: Path) -> None:
    order = tmp_path / "order"
    order.touch()
    script = (
        "import pathlib, signal, sys, time\n"
        f"note = lambda word: open({str(order)!r}, 'a').write(word + ' ')\n"
        "def term(*_): note(sys.argv[1] + '-down'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, term)\n"
        "note(sys.argv[1] + '-up'); time.sleep(60)"
    )
    store = Program("store", (sys.executable, "-c", script, "store"))
    child = Program("child", (sys.executable, "-c", script, "child"))
    watcher = Supervisor([child], store=store, store_ready=lambda: "store-up" in order.read_text(), say=print)
    run_beside(watcher, lambda: wait_for(lambda: "child-up" in order.read_text()))
    assert order.read_text().split() == ["store-up", "child-up", "child-down", "store-down"]


def test_store_that_cannot_start_is_told_with_its_last_words() -> None:
    store = python("store", "import sys; print('bad file'); sys.exit(4)")
    watcher = Supervisor([python("a", FOREVER)], store=store, store_ready=lambda: False, say=lambda *_: None)
    with pytest.raises(SetupError, match="ended with status 4 while starting: bad file"):
        watcher.run()
    assert watcher.pids() == {}


def test_leftovers_of_an_ended_child_are_swept() -> None:
    said, ended = Transcript(), list[str]()
    script = (
        "import subprocess, sys\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(left.pid, flush=True)"
    )
    watcher = Supervisor([python("a", script)], say=said, on_end=lambda name, pid: ended.append(name))

    def act() -> None:
        wait_for(lambda: ended)
        wait_for(lambda: not alive(int(said.of("a")[0])))

    run_beside(watcher, act)
    assert said.of("a")


def test_very_long_line_is_passed_on_in_pieces() -> None:
    said = Transcript()
    script = "import sys; sys.stdout.write('x' * 200_000 + '\\n'); sys.stdout.flush();" + FOREVER
    watcher = Supervisor([python("a", script)], say=said)
    run_beside(watcher, lambda: wait_for(lambda: "up" in said.of("a")))
    assert sum(len(line) for line in said.of("a")[:-1]) == 200_000
