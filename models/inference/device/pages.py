"""The pages of mapped weights, and what the system is told of them."""

import ctypes
import mmap
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

MAPPINGS = Path("/proc/self/smaps")
MADV_COLD = 20
"""Linux 5.4 and later: take these pages first when memory is wanted."""
MADV_DONTNEED = 4
"""Take these pages out of the process; those of a file stay in the system's cache."""


def give_up_first(module: nn.Module) -> None:
    """Have the system drop a module's pages before others, once it needs room; until then they stay."""
    _advise(_ranges(module), MADV_COLD)


@contextmanager
def leaving_behind(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block the mapped pages of each layer leave the process once it has run."""
    files = list(unwritten_files()) if layers else []
    hooks = [layer.register_forward_hook(lambda layer, *_: unmap(layer, files)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def unmap(module: nn.Module, files: Sequence[range]) -> None:
    """Have the pages of a module that are of mapped `files` leave the process, which is done with them.

    They stay in the system's cache, where they count as free memory and go first. The next use takes them
    from there, where nothing was dropped in between. `files` are those that `unwritten_files`
    told, and nothing was written since: it would be lost.
    """
    mapped = [own for own in _ranges(module) if any(own.start in file and own[-1] in file for file in files)]
    # Taken out as they are they would count as used of late.
    _advise(mapped, MADV_COLD)
    _advise(mapped, MADV_DONTNEED)


def _ranges(module: nn.Module) -> list[range]:
    """The addresses of the whole pages of each parameter in host memory."""
    ranges = []
    for tensor in module.parameters():
        if tensor.device.type == "cpu":
            begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if end > begin:
                ranges.append(range(begin, end))
    return ranges


def _advise(ranges: list[range], advice: int) -> None:
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    for pages in ranges:
        # What an older system refuses it does by its own lights.
        advise(ctypes.c_void_p(pages.start), ctypes.c_size_t(len(pages)), advice)


def unwritten_files() -> Iterator[range]:
    """The addresses of each mapped file of which no page was written, as that one would be nowhere else."""
    if sys.platform != "linux":
        return
    addresses, is_file, written = range(0), False, False
    for line in [*MAPPINGS.read_text().splitlines(), "0-0 ---p 0 0:0 0"]:
        first, *rest = line.split()
        if first in ("Anonymous:", "Swap:"):
            written |= rest[0] != "0"
        elif not first.endswith(":"):
            if is_file and not written:
                yield addresses
            begin, end = (int(address, 16) for address in first.split("-"))
            addresses, is_file, written = range(begin, end), rest[3] != "0", False
