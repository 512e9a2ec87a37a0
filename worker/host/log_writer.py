"""A stream for a log that nobody may wait for: what cannot be written is dropped, and later the log says so.

A pipe that nobody reads holds up whoever writes to it, a closed one and a full disk are errors; a server has
to go on in each case. A thread writes, and at most `QUEUE_BYTES` wait for it.
"""

import io
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

QUEUE_BYTES = 1_048_576
"""Memory for what waits: some thousand lines."""
CLOSE_SECONDS = 2.0
"""How long `close` waits for what is not written yet."""


class LogWriter(io.RawIOBase):
    """Writes to the descriptor `fd`, which stays open when this stream is closed.

    `write` takes every piece at once and never raises OSError. `dropped` makes the line, without a newline,
    that stands where so many lines are missing.
    """

    def __init__(self, fd: int, dropped: Callable[[int], str]) -> None:
        self._fd = fd
        self._dropped_line = dropped
        self._waiting: deque[tuple[int, bytes]] = deque()
        """Each piece with the number of lines that were dropped before it; the first is being written."""
        self._waiting_bytes = 0
        self._dropped = 0
        """Lines that were dropped since the last piece that waits."""
        self._in_a_line = False
        """What was written last did not end its line, because an error cut it off."""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: "ReadableBuffer", /) -> int:
        """The number of bytes of `data`, whether they are dropped or not."""
        piece = bytes(data)
        with self._changed:
            if self._waiting_bytes + _size(piece) > QUEUE_BYTES:
                self._dropped += _lines(piece)
            else:
                self._waiting.append((self._dropped, piece))
                self._waiting_bytes += _size(piece)
                self._dropped = 0
                self._changed.notify()
        return len(piece)

    def close(self) -> None:
        """Waits `CLOSE_SECONDS` at most for what is not written yet."""
        if self.closed:
            return
        super().close()
        with self._changed:
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        missing = 0
        while (first := self._first()) is not None:
            dropped, piece = first
            missing += dropped
            if missing:
                start = "\n" if self._in_a_line else ""
                told = not self._put(f"{start}{self._dropped_line(missing)}\n".encode())
                missing = 0 if told else missing
            missing += _lines(piece if missing else self._put(piece))
            self._remove_first()

    def _first(self) -> tuple[int, bytes] | None:
        """What is to be written next; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed)
            return self._waiting[0] if self._waiting else None

    def _remove_first(self) -> None:
        with self._changed:
            _, piece = self._waiting.popleft()
            self._waiting_bytes -= _size(piece)
            if self._dropped and not self._waiting:
                # Told at once: the next line may be long in coming.
                self._waiting.append((self._dropped, b""))
                self._waiting_bytes += _size(b"")
                self._dropped = 0

    def _put(self, data: bytes) -> bytes:
        """Writes until it is all written or an error comes; returns what is left."""
        while data:
            try:
                count = os.write(self._fd, data)
            except OSError:
                break
            self._in_a_line = not data[:count].endswith(b"\n")
            data = data[count:]
        return data


def _size(piece: bytes) -> int:
    # With what an object costs by itself, so that empty lines are bounded too.
    return sys.getsizeof(piece)


def _lines(piece: bytes) -> int:
    return piece.count(b"\n")
