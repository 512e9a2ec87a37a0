"""Where training runs: device, precision, whether steps are compiled, and how many processes draw."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Runtime:
    device: str
    """`cpu` or `cuda`."""
    workers: int
    """Processes that render."""
    compiled: bool
    bfloat16: bool
    """Autocast to it; pays on GPUs and on processors with AMX, and costs on others."""

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16)

    def compile(self, function: F) -> F:
        return cast(F, torch.compile(function)) if self.compiled else function
