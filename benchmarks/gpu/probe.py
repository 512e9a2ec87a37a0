"""What a card does: its clocks, its rates at the shapes of a step, and the kernels that a picture takes."""

import subprocess
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.arithmetic import padded
from benchmarks.gpu.measure import synchronize

Row = dict[str, Any]

CLOCKS = (
    "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit",
    "temperature.gpu", "pcie.link.gen.current", "pcie.link.width.current",
)  # fmt: skip
"""What NVIDIA's driver is asked for."""
SMI_SECONDS = 10
CAPTION_TOKENS = 32
RUNS, WARM_UP = 20, 3
COPIED_BYTES = 2**28
"""The size of each copy that is timed: between that of a block in 8 bits and in 16."""
KERNELS = 20
"""So many are told of, those that take most time first."""
NAME = 80
"""Letters of a kernel's name: of templates it has hundreds."""
ATTENTION = {
    "chosen by PyTorch": None,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def milliseconds(work: Callable[[], Any], device: str) -> float:
    """The median of some runs, by the device's own clock where it has one."""
    for _ in range(WARM_UP):
        work()
    if not device.startswith("cuda"):
        begun = time.perf_counter()
        work()
        return (time.perf_counter() - begun) * 1000
    stream = torch.cuda.current_stream(device)
    pairs: list[tuple[Any, Any]] = []
    for _ in range(RUNS):
        pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        pair[0].record(stream)
        work()
        pair[1].record(stream)
        pairs.append(pair)
    synchronize(device)
    return float(median(begin.elapsed_time(end) for begin, end in pairs))


def rates(config: Any, sides: tuple[int, ...], device: str, dtype: torch.dtype) -> Iterator[Row]:
    """Rows for the clocks, before and behind the products, and for products, attention and copies.

    `config` is the transformer's; the tokens are those of square pictures of these sides, in pixels.
    """
    yield {"of": "clocks at rest", **clocks(device)}
    for side in sides:
        tokens = padded((side // 16) ** 2) + CAPTION_TOKENS
        yield from _products(tokens, config["dim"], device, dtype)
        yield from _attention(tokens, config["n_heads"], config["dim"] // config["n_heads"], device, dtype)
    yield {"of": "clocks under load", **clocks(device)}
    yield {"of": "copies", **_copies(COPIED_BYTES if device.startswith("cuda") else 2**20, device)}


def clocks(device: str) -> Row:
    """Versions, and what NVIDIA's driver tells of this card, if it tells."""
    told: Row = {"torch": torch.__version__}
    if not device.startswith("cuda"):
        return told
    told["cuDNN"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    command = ["nvidia-smi", "-i", f"GPU-{torch.cuda.get_device_properties(device).uuid}"]
    command += [f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return told | {"failed": str(error)}
    return told | dict(zip(CLOCKS, map(str.strip, done.stdout.split(",")), strict=False))


def _products(tokens: int, width: int, device: str, dtype: torch.dtype) -> Iterator[Row]:
    inner = int(width / 3 * 8)
    for rows, columns in ((width, width), (inner, width), (width, inner)):
        row: Row = {"of": "product", "tokens": tokens, "out": rows, "in": columns}
        for name, product in _kinds(tokens, rows, columns, device, dtype).items():
            try:
                taken = milliseconds(product, device)
            except RuntimeError as error:
                row[name] = str(error).splitlines()[0]
            else:
                row |= {
                    f"{name} ms": _short(taken),
                    f"{name} TF/s": _rate(2 * tokens * rows * columns, taken),
                }
        yield row


def _kinds(
    tokens: int, rows: int, columns: int, device: str, dtype: torch.dtype
) -> dict[str, Callable[[], Tensor]]:
    """The same product in each precision that a path has."""
    left = torch.randn(tokens, columns, device=device, dtype=dtype)
    right = torch.randn(rows, columns, device=device, dtype=dtype)
    numbers, weight = (
        torch.randint(-127, 128, each.shape, device=device, dtype=torch.int8) for each in (left, right)
    )
    kinds: dict[str, Callable[[], Tensor]] = {
        str(dtype).removeprefix("torch."): lambda: F.linear(left, right),
        "int8": lambda: torch._int_mm(numbers, weight.t()),
    }
    if device.startswith("cuda"):
        scales = torch.ones(tokens, 1, device=device), torch.ones(1, rows, device=device)
        small, narrow = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).t()
        kinds["fp8"] = lambda: torch._scaled_mm(
            small, narrow, scale_a=scales[0], scale_b=scales[1], out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return kinds


def _attention(tokens: int, heads: int, width: int, device: str, dtype: torch.dtype) -> Iterator[Row]:
    query, key, value = torch.randn(3, 1, tokens, heads, width, device=device, dtype=dtype).transpose(2, 3)
    for name, backend in ATTENTION.items():

        def attend(backend: SDPBackend | None = backend) -> Tensor:
            if backend is None:
                return F.scaled_dot_product_attention(query, key, value)
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(query, key, value)

        row: Row = {"of": "attention", "tokens": tokens, "kernel": name}
        try:
            begun = time.perf_counter()
            attend()
            synchronize(device)
            first = time.perf_counter() - begun
            taken = milliseconds(attend, device)
        except RuntimeError as error:
            yield row | {"failed": str(error).splitlines()[0]}
            continue
        rate = _rate(4 * tokens**2 * heads * width, taken)
        yield row | {"first s": round(first, 4), "ms": _short(taken), "TF/s": rate}


def _copies(size: int, device: str) -> Row:
    """Gigabytes a second from host memory, pageable and locked, and within the device, read and written."""
    source = torch.ones(size, dtype=torch.uint8)
    target = torch.empty(size, dtype=torch.uint8, device=device)
    works: dict[str, tuple[int, Callable[[], Any]]] = {"pageable": (1, lambda: target.copy_(source))}
    if device.startswith("cuda"):
        locked = source.pin_memory()
        works["page-locked"] = 1, lambda: target.copy_(locked, non_blocking=True)
    works["on the device"] = 2, target.clone
    return {
        f"{name} GB/s": _short(times * size / 1e6 / milliseconds(work, device))
        for name, (times, work) in works.items()
    }


def kernels(work: Callable[[], Any], device: str) -> Row:
    """How many kernels `work` takes, their milliseconds, and of those that take most: ms and calls."""
    on_gpu = device.startswith("cuda")
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        work()
        synchronize(device)
    times = [
        (each.self_device_time_total if on_gpu else each.self_cpu_time_total, each.count, each.key)
        for each in found.key_averages()
        if each.device_type == kind
    ]
    times.sort(reverse=True)
    return {
        "kernels": sum(count for _, count, _ in times),
        "kernel ms": _short(sum(taken for taken, _, _ in times) / 1000),
        "of them": {name[:NAME]: [_short(taken / 1000), count] for taken, count, name in times[:KERNELS]},
    }


def _rate(operations: float, taken: float) -> float:
    """Teraflops a second, of milliseconds."""
    return _short(operations / taken / 1e9)


def _short(number: float) -> float:
    return float(f"{number:.4g}")
