"""Copies from host memory to a device that the host does not wait for."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor in host memory on `device`; to a GPU by page-locked memory, beside what it computes."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
