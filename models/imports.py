"""The import of large libraries: without a search for garbage, and with what they read when they load."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
"""The variables that PyTorch's allocator for GPUs is set up by. It takes the first that is there."""


@contextmanager
def importing() -> Iterator[None]:
    """Import PyTorch and diffusers within the block: the search for garbage is stopped there.

    It is a fifth of their import's time, and finds nothing. A GPU's memory is in segments that grow, unless
    the environment says how it is: without them, what one part leaves is in pieces that the next cannot use.
    """
    if not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
