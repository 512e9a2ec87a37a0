"""What a server prints, out of the way of what it does: its log may be a full disk or a pipe nobody reads."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO

from app.cli.programs import log_line
from worker.host.log_writer import LogWriter
from worker.logs import LogFormat


@contextmanager
def server_log(log_format: LogFormat) -> Iterator[None]:
    """Within, what is printed to standard output and error is written by threads of their own.

    Lines that cannot be written are dropped and counted: the next one that can says how many.
    """

    def dropped(count: int) -> str:
        return log_line(log_format, "zturbo", f"{count} lines of this log could not be written here")

    def writer(fd: int, stream: TextIO) -> TextIO:
        raw = opened.enter_context(LogWriter(fd, dropped))
        return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True)  # type: ignore[type-var]

    out, err = _descriptor(sys.stdout), _descriptor(sys.stderr)
    with ExitStack() as opened:
        if out is not None:
            opened.enter_context(redirect_stdout(writer(out, sys.stdout)))
        if err is not None:
            # In one file, lines stay in order.
            same = out is not None and os.path.sameopenfile(out, err)
            opened.enter_context(redirect_stderr(sys.stdout if same else writer(err, sys.stderr)))
        yield


def _descriptor(stream: TextIO | None) -> int | None:
    """None for what holds nobody up: a stream that was closed from the start, or one in memory."""
    with suppress(AttributeError, io.UnsupportedOperation):
        return stream.fileno()  # type: ignore[union-attr]
    return None
