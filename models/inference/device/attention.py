"""The order in which PyTorch's attention kernels are tried."""

from contextlib import AbstractContextManager, nullcontext

from torch.nn.attention import SDPBackend, sdpa_kernel

CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def preferring(attention: str) -> AbstractContextManager[None]:
    """Within the block and for `cudnn`, cuDNN is tried before the others, which serve what it cannot do.

    `auto` leaves the order to PyTorch. On an H100 cuDNN is published at one and a half times the rate of
    Flash Attention 2 (Dao-AILab/flash-attention, PR 1075); not yet tried here.
    """
    return sdpa_kernel(CUDNN_FIRST, set_priority=True) if attention == "cudnn" else nullcontext()
