"""A log that is stuck, gone or full: whoever writes goes on, and the log says later what it lacks."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import wait_for
from worker.host import log_writer
from worker.host.log_writer import LogWriter


def dropped(count: int) -> str:
    return f"{count} dropped"


class Pipe:
    """A pipe, of which the test holds both ends."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.text = ""

    def fill(self) -> None:
        os.set_blocking(self.write_end, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.write_end, b"." * 4096)
        os.set_blocking(self.write_end, True)

    def read(self) -> str:
        """All that arrived until now, without the filling."""
        with suppress(BlockingIOError):
            while data := os.read(self.read_end, 65_536):
                self.text += data.replace(b".", b"").decode()
        return self.text


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.read_end)
    os.close(pipe.write_end)


def test_everything_is_written_in_order_before_it_is_closed(pipe: Pipe) -> None:
    with LogWriter(pipe.write_end, dropped) as log:
        for number in range(2000):
            assert log.write(f"{number}\n".encode()) == len(f"{number}\n")
    assert pipe.read().split() == [str(number) for number in range(2000)]


def test_pipe_that_nobody_reads_holds_nobody_up_and_costs_little_memory(pipe: Pipe) -> None:
    pipe.fill()
    line = b"x" * 999 + b"\n"
    lines = 3 * log_writer.QUEUE_BYTES // len(line)
    with LogWriter(pipe.write_end, dropped) as log:
        for _ in range(lines):
            log.write(line)
        assert sum(map(sys.getsizeof, [piece for _, piece in log._waiting])) <= log_writer.QUEUE_BYTES
        wait_for(lambda: "dropped" in pipe.read())
        *kept, told = pipe.text.splitlines()
        assert told == f"{lines - len(kept)} dropped"
        assert set(kept) == {line.decode().rstrip()}

        log.write(b"as before\n")
        wait_for(lambda: pipe.read().endswith(" dropped\nas before\n"))


def test_empty_lines_are_bounded_too(pipe: Pipe) -> None:
    pipe.fill()
    with LogWriter(pipe.write_end, dropped) as log:
        for _ in range(log_writer.QUEUE_BYTES // 10):
            log.write(b"\n")
        assert len(log._waiting) < log_writer.QUEUE_BYTES // sys.getsizeof(b"\n") + 1
        pipe.read()


def test_end_waits_for_nobody(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "CLOSE_SECONDS", 0.01)
    pipe.fill()
    log = LogWriter(pipe.write_end, dropped)
    log.write(b"never read\n")
    log.close()
    assert log._thread.is_alive()
    pipe.read()
    wait_for(lambda: not log._thread.is_alive())


def test_reader_that_comes_back_is_told_what_it_missed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fd = os.open(path, os.O_WRONLY)
    with LogWriter(fd, dropped) as log:
        log.write(b"first\n")
        wait_for(lambda: not log._waiting)
        assert os.read(reader, 100) == b"first\n"
        os.close(reader)
        log.write(b"second\nthird\n")
        log.write(b"fourth\n")
        wait_for(lambda: not log._waiting)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        log.write(b"fifth\n")
        log.close()
        assert os.read(reader, 100).decode().splitlines() == ["3 dropped", "fifth"]
    os.close(reader)
    os.close(fd)


def test_line_that_a_full_disk_cut_off_ends_before_the_next_one(tmp_path: Path) -> None:
    end = 2**40
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "log").open("wb") as file, LogWriter(file.fileno(), dropped) as log:
        file.seek(end - len("first li"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (end, before[1]))
        try:
            log.write(b"first line\nsecond line\n")
            log.write(b"third line\n")
            wait_for(lambda: not log._waiting)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.write(b"fourth line\n")
        log.close()
        with (tmp_path / "log").open("rb") as written:
            written.seek(end - len("first li"))
            assert written.read().splitlines() == [b"first li", b"3 dropped", b"fourth line"]
