"""SwiGLU, `silu(x @ w1.T) * (x @ w3.T)`, as one kernel of Triton's: what the two products make of a token
meets in registers, where cuBLAS would write both, for a third kernel to read.

For bfloat16 on NVIDIA's GPUs, sums in float32; torch.compile takes it as a part of a block's code, for any
number of tokens. cuBLAS is the faster one for the products alone, so that it is no more than a candidate of
`models.inference.fast_path`. Not yet tried on a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton
from torch.nn import functional as F

ROWS, COLUMNS = 128, 128
"""Tokens and numbers of each that one program makes; for them it reads as many rows of both weights."""
DEPTHS = (64, 32)
"""Columns of tokens and weights at a time: the second where three times the first have no room."""
STAGES = 4
"""The most of them that are on their way at once."""
WARPS = 8
GROUP = 8
"""Programs whose tokens follow each other run at the same time, with the same weights in the cache."""


@triton.jit  # type: ignore[untyped-decorator]
def swiglu_kernel(  # type: ignore[no-untyped-def]
    x, w1, w3, out, tokens, width: tl.constexpr, inner: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr, depth: tl.constexpr, group: tl.constexpr,
):  # fmt: skip
    """Make a tile, `rows` x `columns`, of `out` (tokens, inner) from `x` (tokens, width), `w1` and `w3`."""
    across = inner // columns
    within = tl.program_id(0) % (group * across)
    first = tl.program_id(0) // (group * across) * group
    height = min(tl.cdiv(tokens, rows) - first, group)
    token = (first + within % height) * rows + tl.arange(0, rows)
    number = within // height * columns + tl.arange(0, columns)
    step = tl.arange(0, depth)
    # Where there is no such token another one is read, and nothing written.
    x += (token % tokens)[:, None] * width + step[None]
    w1 += number[None] * width + step[:, None]
    w3 += number[None] * width + step[:, None]
    gate = tl.zeros((rows, columns), tl.float32)
    value = tl.zeros((rows, columns), tl.float32)
    for _ in range(0, width, depth):
        part = tl.load(x)
        gate = tl.dot(part, tl.load(w1), gate)
        value = tl.dot(part, tl.load(w3), value)
        x += depth
        w1 += depth
        w3 += depth
    made = gate * tl.sigmoid(gate) * value
    place = out + token[:, None] * inner + number[None]
    tl.store(place, made.to(out.dtype.element_ty), mask=token[:, None] < tokens)


def launch(x: Tensor, w1: Tensor, w3: Tensor, memory: int) -> Tensor:
    """Run the kernel on a device whose blocks of threads may have so many bytes of shared memory each."""
    (tokens, width), inner = x.shape, len(w1)
    out = x.new_empty(tokens, inner)
    bytes_of = {depth: (ROWS + 2 * COLUMNS) * depth * x.element_size() for depth in DEPTHS}
    depth = next((depth for depth in DEPTHS if 3 * bytes_of[depth] <= memory), DEPTHS[-1])
    stages = min(memory // bytes_of[depth], STAGES)
    grid = (triton.cdiv(tokens, ROWS) * (inner // COLUMNS),)
    wrap_triton(swiglu_kernel)[grid](
        x, w1, w3, out, tokens, width, inner, ROWS, COLUMNS, depth, GROUP, num_warps=WARPS, num_stages=stages
    )  # fmt: skip
    return out


def as_written(x: Tensor, w1: Tensor, w3: Tensor) -> Tensor:
    """The operation `zturbo::swiglu`, of tokens (tokens, width)."""
    fits = x.is_cuda and x.dtype == w1.dtype == w3.dtype == torch.bfloat16
    if not fits or x.shape[1] % max(DEPTHS) or len(w1) % COLUMNS:
        return F.silu(F.linear(x, w1)) * F.linear(x, w3)
    memory = torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin
    return launch(x.contiguous(), w1.contiguous(), w3.contiguous(), memory)


operation = triton_op("zturbo::swiglu", as_written, mutates_args=())


def swiglu(x: Tensor, w1: Tensor, w3: Tensor) -> Tensor:
    """`silu(x @ w1.T) * (x @ w3.T)` of tokens (…, width) and weights (inner, width): (…, inner).

    On a GPU in bfloat16 by the kernel, where the weights divide into its tiles; elsewhere by two products.
    """
    made: Tensor = operation(x.flatten(0, -2), w1, w3)
    return made.view(*x.shape[:-1], -1)
