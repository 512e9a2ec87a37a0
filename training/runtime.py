"""Where training runs: device, precision, whether steps are compiled, and how many processes draw."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Runtime:
    device: str
    """`cpu` or `cuda`."""
    workers: int
    """Processes that render."""
    compiled: bool
    bfloat16: bool
    """Autocast to it; pays on GPUs and on processors with AVX512_BF16 or AMX, and costs on others."""

    def autocast(self) -> AbstractContextManager[Any]:
        if self.bfloat16 and self.device == "cpu":
            return _bfloat16_on_a_processor()
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16)

    def compile(self, function: F) -> F:
        return cast(F, torch.compile(function)) if self.compiled else function


@contextmanager
def _bfloat16_on_a_processor() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16), _AttentionInFloat32():
        yield


class _AttentionInFloat32(TorchFunctionMode):
    """Going back through attention in bfloat16 takes PyTorch on a processor four times as long as in float32:
    a third of a step.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.scaled_dot_product_attention:
            with torch.autocast("cpu", enabled=False):
                return function(*(tensor.float() for tensor in args), **(kwargs or {}))
        return function(*args, **(kwargs or {}))
