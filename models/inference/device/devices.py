"""The devices of this machine and the memory that is free on them."""

import gc
import re
from typing import Literal

import torch

from models.errors import ModelError
from models.inference.denoise import fp8
from models.inference.denoise.int8 import is_faster
from models.inference.device.host_memory import host_free_bytes

ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)")
"""A name of NVIDIA's: compute capability 8.6 is sm_86."""
BFLOAT16_CAPABILITY = (8, 0)
"""The first compute capability of NVIDIA's whose matrix units take bfloat16."""


def find_device(wanted: str) -> str:
    """The device that a setting means here; `auto`: a CUDA GPU, else Apple's, else the CPU.

    Raises `ModelError` for one that is not here, or that PyTorch has no kernels for.
    """
    have = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    found = have if wanted == "auto" else wanted
    if found.split(":")[0] not in (have, "cpu"):
        raise ModelError(f"ZTURBO_DEVICE={wanted} is not on this machine: PyTorch sees {have} only.")
    if found.startswith("cuda"):
        _check_kernels(found)
    return found


def _check_kernels(device: str) -> None:
    """Raises ModelError for a card that PyTorch was not built for, such as an old one: every kernel fails."""
    own = torch.cuda.get_device_capability(device)
    names = [found for name in torch.cuda.get_arch_list() if (found := ARCHITECTURE.match(name))]
    built = [(name[1], (int(name[2]), int(name[3]))) for name in names]
    # Code runs on later cards of its generation; a driver makes code of `compute` for all later ones.
    if not built or any(each <= own and (kind == "compute" or each[0] == own[0]) for kind, each in built):
        return
    versions = ", ".join(f"{major}.{minor}" for _, (major, minor) in sorted(built, key=lambda each: each[1]))
    raise ModelError(
        f"PyTorch has no kernels here for {torch.cuda.get_device_name(device)}, whose compute capability is "
        f"{own[0]}.{own[1]}, but for {versions}: set ZTURBO_DEVICE=cpu."
    )


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


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
