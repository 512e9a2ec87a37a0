"""The counting of what a GPU would be given to do, on tensors that have shapes and no values.

Each operation that is no view counts as one kernel, which reads its operands and writes its result once.
"""

import traceback
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

NO_KERNEL = {
    "alias", "as_strided", "chunk", "detach", "diagonal", "empty", "empty_like", "empty_strided", "expand",
    "lift", "lift_fresh", "new_empty", "permute", "prim::device", "reshape", "select", "slice", "split",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view",
    "view_as_complex", "view_as_real", "_reshape_alias", "_unsafe_view", "set_", "is_pinned",
    "_has_compatible_shallow_copy_type",
}  # fmt: skip
"""The operations that move no bytes."""
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
"""The operations whose result the host needs."""
ATTENTION = "attention"
"""Stands in the name of every kernel for it."""
LARGEST_FLASH_WIDTH = 256
"""The widest head that Flash Attention takes."""
SOURCES = ("/models/", "/diffusers/", "/transformers/")

GEMM_RATE, NARROW_RATE, ATTENTION_RATE, MEMORY_RATE = 700e12, 1100e12, 550e12, 2.6e12
"""What is assumed of an H100: operations a second of products in 16 and in 8 bits, of attention; bytes."""
LEAST_SECONDS = 2e-6
"""The least time that a kernel takes."""


class Kernel(NamedTuple):
    name: str
    bytes: int
    flop: int
    narrow: bool
    """True for a product of 8-bit numbers."""
    in_block: bool = False
    """True for one of a transformer's block, where a compiler fuses what is no product and no attention."""

    @property
    def is_fused(self) -> bool:
        """True where a compiler makes a part of another kernel of it."""
        return self.in_block and not self.flop

    @property
    def seconds(self) -> float:
        """An estimate for an H100."""
        if ATTENTION in self.name:
            return self.flop / ATTENTION_RATE
        rate = NARROW_RATE if self.narrow else GEMM_RATE
        return max(self.flop / rate, self.bytes / MEMORY_RATE, LEAST_SECONDS)


@dataclass
class Counts:
    """What happened within a block."""

    kernels: list[Kernel] = field(default_factory=list)
    graphs: int = 0
    """CUDA graphs that were replayed."""
    replayed: list[Kernel] = field(default_factory=list)
    """The kernels of these, which the host did not launch."""
    waits: Counter[str] = field(default_factory=Counter)
    """Places in the code where the host waited until the device had nothing left to do."""
    pageable: Counter[str] = field(default_factory=Counter)
    """Places that copied to the device from memory that is not page-locked."""
    uploads: int = 0
    upload_bytes: int = 0
    peak: int = 0
    """Bytes of the device that were in use at once."""

    def without(self, first: "Counts") -> "Counts":
        """The kernels that come behind those of `first`, with which these begin."""
        done = len(first.kernels), len(first.replayed)
        return Counts(self.kernels[done[0] :], self.graphs - first.graphs, self.replayed[done[1] :])

    @property
    def launches(self) -> int:
        return len(self.kernels) + self.graphs

    @property
    def bytes(self) -> int:
        return sum(kernel.bytes for kernel in self.kernels + self.replayed)

    @property
    def flop(self) -> int:
        return sum(kernel.flop for kernel in self.kernels + self.replayed)

    @property
    def seconds(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels + self.replayed)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations on a fake device, and the bytes that are alive on it and page-locked on the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()
        self.live = 0
        """Bytes on the device."""
        self.launched = 0
        """Kernels and copies so far."""
        self.aside = 0
        """Above 0 while another queue than the main one is in use."""
        self.in_block = False
        """True while a transformer's block runs."""
        self.most_pinned = 0
        """The most bytes of the host that were page-locked at once."""
        self.most_private = 0
        """The most bytes of tensors on the host at once, files that are mapped left out."""
        self.pinned: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._private = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._mapping = False

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Counts of the block alone; they are told to the block around it as well."""
        before, self.counts = self.counts, Counts(peak=self.live)
        try:
            yield self.counts
        finally:
            inner, self.counts = self.counts, before
            before.kernels += inner.kernels
            before.graphs += inner.graphs
            before.replayed += inner.replayed
            before.waits += inner.waits
            before.pageable += inner.pageable
            before.uploads += inner.uploads
            before.upload_bytes += inner.upload_bytes
            before.peak = max(before.peak, inner.peak)

    @contextmanager
    def mapping(self) -> Iterator[None]:
        """What is made on the host within the block lies in mapped files."""
        self._mapping = True
        try:
            yield
        finally:
            self._mapping = False

    def wait(self) -> None:
        """The host waits here until the device is idle, unless only a queue beside the main one is meant."""
        if not self.aside:
            self.counts.waits[_place()] += 1

    def pin(self, tensor: Tensor, *, exact: bool = False) -> None:
        """Page-lock a tensor; PyTorch's allocator takes the next power of two, unlike what is registered."""
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        self.pinned[storage] = size if exact or not size else 1 << (size - 1).bit_length()
        self.most_pinned = max(self.most_pinned, sum(self.pinned.values()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in WAITS and args[0].device.type == "cuda":
            self.wait()
        if name == "_local_scalar_dense" and isinstance(args[0], FakeTensor):
            return 1.0 if args[0].is_floating_point() else args[0].dtype == torch.bool or 1
        out = func(*args, **kwargs)
        before = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        after = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if kwargs.get("pin_memory"):
            self.pin(after[0])
        on_card = [tensor for tensor in before + after if tensor.device.type == "cuda"]
        for tensor in after:
            if isinstance(tensor, FakeTensor):
                self._see(tensor)
        if not on_card or name in NO_KERNEL:
            return out
        if name in ("_to_copy", "copy_") and len(on_card) < len(before + after):
            self._cross(name, args, kwargs, after[0])
            return out
        size = sum(_moved(tensor) for tensor in {id(tensor): tensor for tensor in on_card}.values())
        narrow = any(tensor.dtype in (torch.int8, torch.float8_e4m3fn) for tensor in before)
        flop = _flop(func, args, kwargs, out)
        self.counts.kernels.append(Kernel(name, size, flop, narrow, self.in_block))
        self.launched += 1
        return out

    def _cross(self, name: str, args: Any, kwargs: Any, made: Tensor) -> None:
        """A copy between host and device."""
        source = args[0] if name == "_to_copy" else args[1]
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        self.launched += 1
        if source.device.type == "cuda":
            # A copy to pageable memory is one that the host waits for, whatever was asked.
            if blocking or made.untyped_storage() not in self.pinned:
                self.wait()
            return
        self.counts.uploads += 1
        self.counts.upload_bytes += made.nbytes
        if source.untyped_storage() not in self.pinned:
            self.counts.pageable[_place()] += 1
            self.wait()
        elif blocking:
            self.wait()

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        on_card = tensor.device.type == "cuda"
        # What is on the meta device, before it has its weights, takes no memory either.
        on_host = tensor.device.type == "cpu" and not self._mapping
        size = storage.nbytes() if on_card or on_host else 0
        self._add(size, on_card)
        weakref.finalize(storage, self._add, -size, on_card).atexit = False

    def _add(self, size: int, on_card: bool) -> None:
        if on_card:
            self.live += size
            self.counts.peak = max(self.counts.peak, self.live)
        else:
            self._private += size
            self.most_private = max(self.most_private, self._private)


class Substitutes(TorchFunctionMode):
    """What tensors without values cannot do by themselves."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            func(*args)
            args[0].fake_device = args[1].fake_device
            return None
        if func is F.scaled_dot_product_attention:
            return fused_attention(*args, **kwargs)
        if func is Tensor.pin_memory:
            copy = args[0].clone()
            self._recorder.pin(copy)
            return copy
        if func is Tensor.is_pinned:
            return args[0].untyped_storage() in self._recorder.pinned
        if func is Tensor.numpy and type(args[0]) is not Tensor:
            return np.ones(tuple(args[0].shape), str(args[0].dtype).removeprefix("torch."))
        return func(*args, **kwargs)


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """A fused kernel, as on a GPU: without one the fake device would get the scores as a tensor."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    ops = torch.ops.aten
    if attn_mask is None and query.shape[-1] <= LARGEST_FLASH_WIDTH:
        fused: Tensor = ops._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal)[0]
    else:
        fused = ops._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, False, 0.0, is_causal
        )[0]
    return fused


def _moved(tensor: Tensor) -> int:
    """Bytes that are read or written: what is only expanded lies in memory once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


def _flop(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    if func is torch.ops.aten._int_mm.default:
        return int(2 * args[0].shape[0] * args[1].numel())
    if func._overloadpacket not in flop_registry:
        return 0
    return int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out))


def _place() -> str:
    """The line of a model's code that the host is in."""
    for frame in reversed(traceback.extract_stack()):
        if any(part in frame.filename for part in SOURCES):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return "elsewhere"
