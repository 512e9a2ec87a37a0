"""Importing what is large."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """For the import of PyTorch and diffusers: a fifth of it is looking for garbage, and there is none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
