"""The order in which PyTorch's attention kernels are tried."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@contextmanager
def preferring(attention: str) -> Iterator[None]:
    """Within the block and for `cudnn`, cuDNN is tried before the others, which serve what it cannot do.

    `auto` leaves the order to PyTorch. On an H100 cuDNN is published at one and a half times the rate of
    Flash Attention 2 (Dao-AILab/flash-attention, PR 1075); not yet tried here.
    """
    if attention != "cudnn":
        yield
        return
    # Compiled code has its kernel chosen, and PyTorch's cache of it does not ask by which order.
    config: Any = torch.compiler.config
    with config.patch(cache_key_tag=attention), sdpa_kernel(CUDNN_FIRST, set_priority=True):
        yield
