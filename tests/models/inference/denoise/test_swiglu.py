"""The kernel of SwiGLU without a GPU: its numbers by Triton's interpreter, and what compilers make of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton is there with PyTorch for CUDA alone")

from benchmarks.gpu.models import TINY
from benchmarks.random_models import random_transformer
from models.inference.denoise.blocks import _feed, use_own_blocks
from models.inference.denoise.compilation import compile_blocks, warm_up
from models.inference.denoise.swiglu import swiglu

ROOT = Path(__file__).parents[4]

INTERPRETED = """
import json, torch
from torch.nn import functional as F
from models.inference.denoise.swiglu import launch

apart = []
for tokens, width, inner in ((1, 64, 128), (130, 192, 256), (1100, 64, 128)):
    x = torch.randn(tokens, width)
    w1, w3 = (torch.randn(inner, width) / width**0.5 for _ in range(2))
    exact = F.silu(x @ w1.T) * (x @ w3.T)
    apart.append(((launch(x, w1, w3, 232448) - exact).norm() / exact.norm()).item())
print(json.dumps(apart))
"""
"""In float32: the interpreter takes the bits of bfloat16 for whole numbers. Several programs share a tile's
rows, and the last has few tokens."""


def test_kernel_makes_what_two_products_make_of_any_number_of_tokens() -> None:
    # A process of its own: what Triton has been imported without, it does not take up later.
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert max(json.loads(run.stdout)) < 1e-6


class Feed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = (nn.Linear(128, 256, bias=False, dtype=torch.bfloat16) for _ in range(2))
        self.w2 = nn.Linear(256, 128, bias=False, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return _feed(self, x, swiglu)


@torch.no_grad()
def test_feed_forward_is_compiled_with_the_kernel_once_for_any_number_of_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = SimpleNamespace(shared_memory_per_block_optin=232_448)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    graphs: list[list[str]] = []

    def seen(graph: Any, _: Any, **__: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return make_boxed_func(graph.forward)

    with FakeTensorMode(shape_env=ShapeEnv()), torch.device("cuda"):
        feed = torch.compile(
            Feed().forward, fullgraph=True, dynamic=True, backend=aot_autograd(fw_compiler=seen)
        )
        for tokens in (77, 91, 4128):
            assert feed(torch.empty(1, tokens, 128, dtype=torch.bfloat16)).shape == (1, tokens, 128)
    torch._dynamo.reset()
    (graph,) = graphs
    assert "triton_kernel_wrapper_functional" in graph
    assert graph.count("aten.mm.default") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu_it_is_the_two_products(dtype: torch.dtype) -> None:
    x, w1, w3 = (torch.randn(shape).to(dtype) for shape in ((2, 7, 64), (128, 64), (128, 64)))
    assert torch.equal(swiglu(x, w1, w3), F.silu(F.linear(x, w1)) * F.linear(x, w3))


@torch.no_grad()
def test_blocks_that_are_compiled_with_it_make_the_same_and_give_it_up_with_their_code() -> None:
    transformer: Any = use_own_blocks(random_transformer(TINY.transformer, torch.float32, "cpu"))
    known: list[bool] = []

    def seen(graph: Any, _: Any, **__: Any) -> Any:
        known.append(any("zturbo.swiglu" in str(node.target) for node in graph.graph.nodes))
        return graph

    plain = warm_up(transformer, None, torch.device("cpu"))
    torch.compiler.set_default_backend(seen)
    try:
        compile_blocks(transformer, compiled=True, swiglu=True)
        torch.testing.assert_close(warm_up(transformer, None, torch.device("cpu")), plain)
    finally:
        torch.compiler.set_default_backend("inductor")
        torch.compiler.set_stance("default")
        torch._dynamo.reset()
    assert set(known) == {True}
    compile_blocks(transformer, compiled=False)
    assert transformer.layers[0].swiglu is None
