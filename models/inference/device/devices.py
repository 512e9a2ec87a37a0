"""The devices of this machine and the memory that is free on them."""

import gc
from typing import Literal

import torch

from models.errors import ModelError
from models.inference.denoise import fp8
from models.inference.denoise.int8 import is_faster
from models.inference.device.host_memory import host_free_bytes

BFLOAT16_CAPABILITY = (8, 0)
"""The first compute capability of NVIDIA's whose matrix units take bfloat16."""


def find_device(wanted: str) -> str:
    """The device that a setting means here; `auto`: a CUDA GPU, else Apple's, else the CPU."""
    have = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted == "auto":
        return have
    if wanted.split(":")[0] not in (have, "cpu"):
        raise ModelError(f"ZTURBO_DEVICE={wanted} is not on this machine: PyTorch sees {have} only.")
    return wanted


def free_bytes(device: str) -> int:
    """Memory that is free on a device. What PyTorch keeps of a GPU's for reuse is free as well.

    Of a Mac's, which its GPU shares, Metal names the share that a GPU may use: two thirds, and three quarters
    of 36 GB and more. The rest is the system's and that of other programs.
    """
    if device.startswith("cuda"):
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    return host_free_bytes()


def used_bytes(device: str) -> tuple[int, int]:
    """Memory in use on a CUDA device, by anybody, and all that it has."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free, total


def free_cache() -> None:
    """Give back memory that is kept for reuse, or held by objects that nobody can reach."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def multiplies_fp8(device: str) -> bool:
    """True for a GPU with matrix units for 8-bit floating point."""
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= fp8.CAPABILITY


def fast_type(device: str) -> Literal["float32", "bfloat16", "float16"]:
    """bfloat16, where the device has it: else float16 on a GPU, and float32 on a processor.

    A processor without instructions for bfloat16 is slower in it.
    """
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY else "float16"
    if device != "cpu":
        return "bfloat16"
    wide = torch.ones(512, 1024)
    narrow = wide.bfloat16()
    return "bfloat16" if is_faster(lambda: narrow @ narrow.t(), lambda: wide @ wide.t()) else "float32"
