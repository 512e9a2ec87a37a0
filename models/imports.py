"""The import of large libraries without a search for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Stop the search for garbage within the block, where PyTorch and diffusers are imported.

    It is a fifth of their import's time, and finds nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
