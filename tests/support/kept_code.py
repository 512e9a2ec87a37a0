"""torch.compile with its cache, and without the code: on a small machine that takes minutes.

What is kept is the graph that a compiler would make code of. So a test sees what is traced anew, and what is
found that another process, or the one before a `reset`, has left.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.compile_fx import compile_fx
from torch._inductor.output_code import RegionalOutputCode


@contextmanager
def keeping_graphs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block whatever is compiled is looked up and kept in `folder`.

    `counters["aot_autograd"]` has `autograd_cache_miss`, `autograd_cache_hit` and `autograd_cache_saved`.
    """
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    settings: dict[str, Any] = {"bundled_autograd_cache": True, "strict_autograd_cache": True}
    backend = partial(compile_fx, inner_compile=lambda graph, _, **__: RegionalOutputCode(graph))
    torch.compiler.set_default_backend(backend)
    try:
        with torch._functorch.config.patch(settings):
            yield
    finally:
        torch.compiler.set_default_backend("inductor")
        torch._dynamo.reset()
