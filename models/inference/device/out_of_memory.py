"""What is done when a device fails in the middle of a picture.

Where memory runs out, room is made and that part of the picture is tried again. Where the device is past
help, `DeviceBroken` says so.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from models.errors import DeviceBroken, OutOfMemory
from models.inference.device.devices import free_cache
from models.inference.device.loaded_model import LoadedModel

T = TypeVar("T")

SHORT_OF_MEMORY = (
    "out of memory",
    "ALLOC_FAILED",
    "can't allocate memory",
    "unable to find an engine to execute this computation",
    "No valid execution plans",
)
"""What plain RuntimeErrors of the driver, cuBLAS, the CPU and cuDNN say when memory has run out."""
GIVE_UP = "give_up"
BROKEN = ("CUDA error", "cuDNN error", "CUDA driver error")

log = logging.getLogger(__name__)


def fit(model: LoadedModel, refusal: str, work: Callable[[], T], pixels: int = 0, pictures: int = 1) -> T:
    """`work()`, done again after each rung of: free what is kept for reuse, decode in tiles, stream weights.

    Pictures of so many pixels are made. Raises OutOfMemory(refusal) when the last rung does not help.
    """
    freed = False
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out here the frames that held the failed part's tensors are gone, and with them their memory.
        model.free_cache()
        rung = _shrink(model, pixels, pictures) if freed else "free_cache"
        model.shortages[rung] += 1
        if rung == GIVE_UP:
            raise OutOfMemory(refusal)
        freed = True
        log.warning("memory ran out on %s; trying again as %s", model.placement.device, model.placement)


def fit_batch(
    model: LoadedModel, refusal: str, pictures: int, work: Callable[[int], T], pixels: int = 0
) -> T:
    """`work(n)`, n pictures at a time: all, half as many each time memory runs out, and one as `fit` does it.

    How many fitted is forgotten: the next may be of another size.
    """
    while pictures > 1:
        try:
            return work(pictures)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        model.free_cache()
        model.shortages["smaller_batch"] += 1
        log.warning("memory ran out on %s with %d pictures at a time", model.placement.device, pictures)
        pictures = (pictures + 1) // 2
    return fit(model, refusal, lambda: work(1), pixels)


def _shrink(model: LoadedModel, pixels: int, pictures: int) -> str:
    """Step down one rung; its name."""
    before = model.placement
    if not model.shrink(pixels, pictures):
        return GIVE_UP
    if model.placement.mode != before.mode:
        return "stream_text_encoder"
    return "tiled_decode" if model.placement.held_bytes == before.held_bytes else "stream_blocks"


def loading(load: Callable[[], T]) -> T:
    """`load()`; raises OutOfMemory where that is what failed it, and nothing is left of what was loaded."""
    try:
        return load()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
    # Out here its frames are gone, so that another try, or another program, finds their memory.
    free_cache()
    raise OutOfMemory(
        f"Memory ran out while the model was loaded ({reason}): stop what else takes memory, or use "
        "ZTURBO_MODEL=demo."
    )


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in SHORT_OF_MEMORY
    )


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn any CUDA error within the block into DeviceBroken, unless memory has run out.

    After such an error every later call fails too, or worse, gives a wrong picture: only a new process helps.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error) or not any(words in str(error) for words in BROKEN):
            raise
        raise DeviceBroken(f"The GPU failed and needs a new process: {str(error).splitlines()[0]}") from error
