"""A compiled block, made for cards that are not there: which kernels come out, and what they move.

    python -m benchmarks.gpu_rehearsal.compiled layer bfloat16 8.0 9.0

Inductor generates the code for any number of tokens, and Triton compiles it for each compute capability. A
process of its own: what stands in for the driver cannot be taken out again. Prints a line of JSON for each.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._inductor.config as inductor
from diffusers import ZImageTransformer2DModel
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._guards import TracingContext, tracing
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import UserDefinedTritonKernel
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._inductor.utils import sympy_product
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn import functional as F

from benchmarks.gpu_rehearsal.card import answers
from benchmarks.gpu_rehearsal.counter import Recorder, fused_attention
from benchmarks.random_models import PUBLISHED
from models.inference.control.controlnet import KNOWN, empty_controlnet
from models.inference.denoise import swiglu
from models.inference.denoise.blocks import Pending, round_blocks, use_own_blocks
from models.inference.denoise.modulation import FACTORS
from models.inference.denoise.rounding import LINEAR

KEPT = (torch.int8, torch.float8_e4m3fn)
PUBLISHED_WIDTH = 3840
TOKENS = 4128
"""The tokens of a picture of 1024x1024 with a caption of 32."""
TOKENS_BYTES = TOKENS * PUBLISHED_WIDTH * 2
"""What all of them take once, in bfloat16."""
SHARED_MEMORY = {"8.0": 166_912, "8.9": 101_376, "9.0": 232_448, "12.0": 101_376}
"""Bytes that one block of threads may have, by compute capability (CUDA's programming guide)."""
RAW_DRIVER = (
    "_cuda_getCurrentRawStream",
    "_cuda_exchangeDevice",
    "_cuda_maybeExchangeDevice",
    "_cuda_getDevice",
)


def main(kind: str, precision: str, *capabilities: str) -> None:
    for capability in capabilities:
        figures: dict[str, Any] = {"block": kind, "precision": precision, "capability": capability}
        try:
            figures |= compile_block(kind, precision, capability)
        except Exception as error:  # whatever the tool chain cannot do here is told by its name
            figures["skipped"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        print(json.dumps(figures), flush=True)


def compile_block(kind: str, precision: str, capability: str) -> dict[str, Any]:
    """The kernels of one block of the published width: of the `first` of a stack, its `last`, any other
    `layer`, one `with SwiGLU` as a kernel of our own, or a `control` block."""
    code: list[str] = []
    fused: list[int] = []
    moved: list[int] = []
    built: list[bool] = []
    generate = GraphLowering.codegen

    def codegen(graph: Any) -> Any:
        out = generate(graph)
        code.append(str(getattr(out[0], "value", out[0])))
        for node in graph.scheduler.nodes:
            if isinstance(node.node, UserDefinedTritonKernel):
                moved.append(sum(_bytes(graph, part) for part in node.node.inputs))
                continue
            size = node.get_read_write_buffers_sizes() + _kept_inside(graph, node)
            moved.append(size)
            if size and not node.is_extern():
                fused.append(size)
        return out

    def no_launchers(tuner: Any, *_: Any, **__: Any) -> None:
        kernels = [result.kernel for result in tuner.compile_results]
        shared = [getattr(kernel, "metadata", kernel).shared for kernel in kernels]
        built.append(bool(shared) and max(shared) <= SHARED_MEMORY[capability])
        tuner.launchers = []

    with (
        patch.object(GraphLowering, "codegen", codegen),
        patch.object(CachingAutotuner, "_make_launchers", no_launchers),
        inductor.patch(compile_threads=1, force_disable_caches=True),
        driver(capability),
    ):
        _compile(*_traced(kind, precision))
    (source,) = code
    return {
        "products": len(re.findall(r"extern_kernels\.(?:mm|addmm|_int_mm|_scaled_mm|bmm)\(", source))
        + len(re.findall(r"_int_mm\.(?:default|out)\(", source)),
        "attention": len(re.findall(r"= torch\.ops\.\S*attention\.default\(", source)),
        "fused kernels": len(re.findall(r"^\s*triton_\w+\.run\(", source, re.MULTILINE)),
        "own kernels": len(re.findall(r"^\s*swiglu_kernel_\d+\.run\(", source, re.MULTILINE)),
        "built": len(built) > 0 and all(built),
        "GB": round(sum(moved) / 1e9, 3),
        "GB of fused kernels": round(sum(fused) / 1e9, 3),
        "tokens of fused kernels": [round(size / TOKENS_BYTES, 1) for size in fused],
    }


def _kept_inside(graph: GraphLowering, node: Any) -> int:
    """Bytes that a fused kernel writes for itself alone, which inductor's own count leaves out."""
    parts = set(node.get_nodes())
    return sum(
        _bytes(graph, buffer.node)
        for buffer in node.get_outputs()
        if len(parts) > 1
        and buffer.get_name() not in graph.removed_buffers
        and all(user.node in parts for user in buffer.users)
    )


def _bytes(graph: GraphLowering, tensor: Any) -> int:
    count = graph.sizevars.optimization_hint(sympy_product(tensor.get_size()), fallback=0)
    return int(count * tensor.get_dtype().itemsize)


@contextmanager
def driver(capability: str) -> Iterator[None]:
    """Within the block Triton finds a driver for a card of this compute capability; it launches nothing."""
    import triton
    from triton.backends.compiler import GPUTarget

    major, minor = (int(number) for number in capability.split("."))
    memory = SHARED_MEMORY[capability]
    properties = SimpleNamespace(
        name="none", major=major, minor=minor, total_memory=80 * 2**30, warp_size=32,
        multi_processor_count=132, max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536,
        shared_memory_per_block=49152, shared_memory_per_block_optin=memory, max_threads_per_block=1024,
        shared_memory_per_multiprocessor=memory + 1024, L2_cache_size=50 * 2**20, gcnArchName="",
    )  # fmt: skip
    figures = {"max_shared_mem": memory, "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32}
    triton.runtime.driver.set_active(
        SimpleNamespace(
            utils=SimpleNamespace(get_device_properties=lambda _: figures),
            get_current_target=lambda: GPUTarget("cuda", major * 10 + minor, 32),
            get_current_device=lambda: 0,
            get_device_capability=lambda *_: (major, minor),
            get_current_stream=lambda *_: 0,
            get_active_torch_device=lambda: torch.device("cuda:0"),
            get_device_interface=lambda: torch.cuda,
            set_current_device=lambda *_: None,
            is_active=lambda: True,
            map_python_to_cpp_type=lambda name: name,
            launcher_cls=None,
        )
    )
    stand_ins: dict[str, Any] = {
        "_get_device_properties": lambda *_: properties,
        "get_device_properties": lambda *_: properties,
        "is_bf16_supported": lambda *_, **__: True,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "device": _Nothing,
        "_DeviceGuard": _Nothing,
    }
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder))
        stack.enter_context(answers(Recorder(), 80, (major, minor)))
        stack.enter_context(patch.multiple("torch.cuda", create=True, **stand_ins))
        for name in RAW_DRIVER:
            stack.enter_context(patch.object(torch._C, name, lambda *_: 0))
        stack.enter_context(
            patch("torch._inductor.runtime.triton_helpers.set_driver_to_gpu", lambda *_, **__: None)
        )
        yield


class _Nothing:
    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _traced(kind: str, precision: str) -> tuple[FakeTensorMode, Any, list[Tensor]]:
    """A block's graph, the number of tokens left open, and what it is called with."""
    block = _block(kind, precision)
    fakes = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    open_length: Any = StatelessSymbolicContext(
        dynamic_sizes=[DimDynamic.STATIC, DimDynamic.DYNAMIC], constraint_sizes=[None, None]
    )
    length = torch.empty(1, TOKENS, device="meta")
    count = fakes.from_tensor(length, symbolic_context=open_length, source=ConstantSource("tokens")).shape[1]
    with torch.no_grad(), fakes:
        width = block.attention.to_q.weight.shape[1]

        def made(*shape: Any, dtype: torch.dtype = torch.bfloat16) -> Tensor:
            return torch.empty(*shape, device="cuda", dtype=dtype)

        weights = {
            name: made(*weight.shape, dtype=_kept(name, weight)) for name, weight in block.named_parameters()
        }
        tokens = [made(1, count, width) for _ in range(2 if kind == "control" else 1)]
        rope = made(1, count, 1, width // block.attention.heads // 2, 2, dtype=torch.float32)
        inputs = [*weights.values(), *tokens, rope, made(FACTORS, 1, width)]
        if kind not in ("first", "control"):
            inputs += [made(1, count, width), made(1, width)]
    hands_on = {} if kind in ("last", "control") else {"whole": False}

    def run(*given: Tensor) -> Any:
        own = dict(zip(weights, given, strict=False))
        arguments = given[len(own) : len(own) + len(tokens) + 2]
        pending = [] if kind in ("first", "control") else [Pending(*given[-2:])]
        result = torch.func.functional_call(block, own, (*arguments, *pending), hands_on)
        return result if isinstance(result, tuple) else (result,)

    with (
        torch.no_grad(),
        fakes,
        enable_python_dispatcher(),
        patch.object(torch.compiler, "is_compiling", lambda: True),
        patch.object(F, "scaled_dot_product_attention", fused_attention),
    ):
        # As torch.compile takes an operation that consists of Triton's kernels: apart.
        apart = {torch.ops.zturbo.swiglu.default: swiglu.as_written}
        # What is in place makes a tensor of its own, as torch.compile has it: else nothing is fused with it.
        functional = functionalize(run, remove="mutations")
        graph = make_fx(functional, decomposition_table=select_decomp_table() | apart)(*inputs)
    return fakes, graph, inputs


def _kept(name: str, weight: Tensor) -> torch.dtype:
    """The type of a weight in a model that is bfloat16 but for what is in 8 bits, and its scales."""
    if name.endswith(".scale"):
        return torch.float32
    return weight.dtype if weight.dtype in KEPT else torch.bfloat16


def _compile(fakes: FakeTensorMode, graph: Any, inputs: list[Tensor]) -> None:
    with torch.no_grad(), fakes, tracing(TracingContext(fakes)):
        compile_fx_inner(graph, inputs)


def _block(kind: str, precision: str) -> Any:
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(**{**PUBLISHED, "n_layers": 1})
        model: Any = use_own_blocks(transformer)
        if kind == "control":
            model = use_own_blocks(empty_controlnet(KNOWN[0], transformer.config))
    if precision in LINEAR:
        round_blocks(model, precision)
    if kind == "with SwiGLU":
        model.layers[0].swiglu = swiglu.swiglu
    # The second, as most are: the first has one product more.
    return model.control_layers[1] if kind == "control" else model.layers[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
