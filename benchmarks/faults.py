"""A Redis whose clock is set and whose disk is slow, by a library that is loaded before libc (Linux only)."""

import mmap
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
LAYOUT = struct.Struct("=qq")


class Faults:
    """What is wrong with one Redis; it starts with nothing."""

    def __init__(self, folder: Path) -> None:
        """Compiles the library into `folder`. Raises CalledProcessError when that fails."""
        library, state = folder / "faults.so", folder / "faults"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        state.write_bytes(bytes(LAYOUT.size))
        self.env = {"LD_PRELOAD": str(library), "ZTURBO_FAULTS": str(state)}
        """The variables that a Redis is to be started with."""
        with state.open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), LAYOUT.size)
        self.clear()

    def clear(self) -> None:
        """All is well again, and the time is that of the machine."""
        self.clock_offset = self._fsync_delay = 0.0
        self._write()

    def set_clock(self, seconds: float) -> None:
        """Sets Redis's clock forward by so many seconds, or back."""
        self.clock_offset += seconds
        self._write()

    def delay_fsync(self, seconds: float) -> None:
        """Lets each fsync from now on take so much longer."""
        self._fsync_delay = seconds
        self._write()

    def _write(self) -> None:
        LAYOUT.pack_into(self._state, 0, int(self.clock_offset * 1e6), int(self._fsync_delay * 1e6))
