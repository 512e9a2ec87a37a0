"""The pages of mapped weights, and what the system is told of them."""

import ctypes
import mmap
import sys

from torch import nn

MADV_COLD = 20
"""Linux 5.4 and later: take these pages first when memory is wanted."""


def give_up_first(module: nn.Module) -> None:
    """Have the system drop a module's pages before others, once it needs room; until then they stay."""
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    for tensor in module.parameters():
        if tensor.device.type != "cpu":
            continue
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = tensor.data_ptr() + tensor.nbytes - begin
        if length > 0:
            # Refused by an older system, which goes by its own lights.
            advise(ctypes.c_void_p(begin), ctypes.c_size_t(length), MADV_COLD)
