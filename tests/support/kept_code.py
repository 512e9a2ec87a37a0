"""torch.compile with its cache, and without the code: on a small machine that takes minutes.

What is kept is the graph that a compiler would make code of. So a test sees what is traced anew, and what is
found that another process, or the one before a `reset`, has left.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import compile_fx
from torch._inductor import config as inductor
from torch._inductor.output_code import RegionalOutputCode


@contextmanager
def keeping_graphs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block whatever is compiled is looked up and kept in `folder`.

    `counters["aot_autograd"]` has `autograd_cache_miss`, `autograd_cache_hit` and `autograd_cache_saved`.
    """

    def keep(graph: Any, *_: Any, **__: Any) -> RegionalOutputCode:
        return RegionalOutputCode(graph, ops_filter=_every_operation)

    settings: dict[str, Any] = {"bundled_autograd_cache": True, "strict_autograd_cache": True}
    torch._dynamo.reset()
    with (
        monkeypatch.context() as patched,
        torch._functorch.config.patch(settings),
        # To learn its patterns takes longer than the rest.
        inductor.patch(pattern_matcher=False),
    ):
        patched.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        patched.setattr(compile_fx, "compile_fx", partial(compile_fx.compile_fx, inner_compile=keep))
        torch.compiler.set_default_backend("inductor")
        try:
            yield
        finally:
            torch._dynamo.reset()


def _every_operation(name: str) -> bool:
    return True


def is_decoder(graph: Any) -> bool:
    """True where there are convolutions, which no block has."""
    return any("conv" in str(node.target) for node in graph.graph.nodes)


def failing_backend(times: int, *, decoder: bool = False) -> Callable[..., Any]:
    """A compiler whose code fails after so many calls, of blocks or of the decoder."""
    calls = iter(range(1000))

    def compile(graph: Any, _: Any, **__: Any) -> Any:
        if is_decoder(graph) != decoder:
            return graph

        def run(*inputs: Any) -> Any:
            if next(calls) >= times:
                raise RuntimeError("the code is broken\nand more")
            return graph(*inputs)

        return run

    return compile
