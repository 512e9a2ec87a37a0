"""The ring: slots on a device, through which blocks of weights stream from host memory while others run.

A block's weights stay where they are on the host, mapped files as a rule, and are never copied back; those of
its modulation alone, which are used when it does not run, stay on the device. While a block runs its weights
are a slot's; meanwhile the block that ran after it the last time is copied into another slot. Blocks that are
held have a copy on the device until they are let go, and take no part. Who changes weights brings them home
first, so that what a block has on the device is always what it has on the host.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn

from models.inference.denoise.modulation import passing_weights
from models.inference.device.placement import SLOTS

ALIGNMENT = 256
"""Bytes, as the allocator's own: kernels may read several numbers at once."""
GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole parts, are spread evenly however many are taken."""

Event = Any
"""A point in the work that a device was given; None is one that is reached already."""
Homes = list[tuple[Tensor, Tensor]]
"""Weights of a block, and their data in host memory."""

log = logging.getLogger(__name__)


class Streams(Protocol):
    """The order of what a device does: computation, as PyTorch gives it, and copies beside it."""

    def copy(self, target: Tensor, source: Tensor, after: Event) -> Event:
        """Copy host memory once `after` is reached; the event is reached when it is copied."""

    def mark(self) -> Event:
        """An event that is reached when the computation that was given until now is done."""

    def hold_back(self, event: Event) -> None:
        """Begin no computation that is given from now on before the event."""

    def wait(self, event: Event) -> None:
        """Return when the event is reached."""

    def staging(self, size: int) -> Tensor:
        """Host memory that copies may read while the host goes on."""


class CudaStreams:
    """A GPU: the copies have a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, target: Tensor, source: Tensor, after: Event) -> Event:
        with torch.cuda.stream(self._copies):
            if after is not None:
                self._copies.wait_event(after)
            target.copy_(source, non_blocking=True)
            return self._copies.record_event()

    def mark(self) -> Event:
        return torch.cuda.current_stream(self._device).record_event()

    def hold_back(self, event: Event) -> None:
        torch.cuda.current_stream(self._device).wait_event(event)

    def wait(self, event: Event) -> None:
        if event is not None:
            event.synchronize()

    def staging(self, size: int) -> Tensor:
        """Page-locked: it is copied about twice as fast, and beside the computation."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            log.warning("%.1f GB of host memory cannot be locked, so copies are slow: %s", size / 1e9, reason)
            return torch.empty(size, dtype=torch.uint8)


class DirectStreams:
    """Any other device: everything is done when it is asked for."""

    def copy(self, target: Tensor, source: Tensor, after: Event) -> Event:
        target.copy_(source)

    def mark(self) -> Event:
        return None

    def hold_back(self, event: Event) -> None:
        pass

    def wait(self, event: Event) -> None:
        pass

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)


class _Slot:
    def __init__(self, size: int, device: torch.device, streams: Streams) -> None:
        self.data = torch.empty(size, dtype=torch.uint8, device=device)
        self.staging = streams.staging(size)
        self.block: nn.Module | None = None
        """The block whose weights it has, or will have once `filled` is reached."""
        self.filled: Event = None
        """Behind the copy from `staging`."""
        # Its memory may have been another tensor's, which kernels given before may still read.
        self.free: Event = streams.mark()
        """Behind the last forward that reads it."""
        self.homes: Homes = []
        """The host's copies of the weights of the block that runs with this slot."""


class Ring:
    """The slots of one device, and the blocks that go through them. Not for two threads at once."""

    def __init__(self, device: torch.device, streams: Streams | None = None) -> None:
        self._device = device
        self._streams = streams
        self._slots: list[_Slot] = []
        """The slots, in the order of their last use: the one used longest ago comes first."""
        self._size = 0
        self._blocks: WeakSet[nn.Module] = WeakSet()
        self._held: WeakKeyDictionary[nn.Module, Homes] = WeakKeyDictionary()
        self._next: WeakKeyDictionary[nn.Module, ref[nn.Module]] = WeakKeyDictionary()
        """What ran after each block the last time."""
        self._last: nn.Module | None = None

    def stream(self, module: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """From now on each block's weights are on the device while it runs, the module's others always."""
        move_all_but(module, blocks, self._device)
        for block in blocks:
            if block in self._blocks:
                continue
            self._blocks.add(block)
            self._size = max(self._size, _layout(block)[1])
            block.register_forward_pre_hook(lambda block, _: self._bring(block))
            # Called too when the block fails or was stopped, wherever that was.
            block.register_forward_hook(lambda block, *_: self._leave(block), always_call=True)
            block.register_forward_hook(lambda block, *_: self._bring_next(block))

    def hold(self, blocks: Sequence[nn.Module], budget: int) -> int:
        """Have as many of these blocks as `budget` bytes take on the device, and the others stream.

        They are spread evenly, so that copies find others to run beside. Returns what is left of the budget.
        """
        self.forget()
        held = []
        for place in sorted(range(len(blocks)), key=lambda place: place * GOLDEN % 1):
            size = block_bytes(blocks[place])
            if size > budget:
                break
            budget -= size
            held.append(blocks[place])
        for block in blocks:
            if block in self._held and block not in held:
                self._let_go(block)
        for block in held:
            if block not in self._held:
                homes: Homes = [(weight, weight.data) for weight in passing_weights(block)]
                # All before the first is used: memory may run out half-way.
                copies = [home.to(self._device, copy=True) for _, home in homes]
                for (weight, _), copied in zip(homes, copies, strict=True):
                    _point(weight, copied)
                self._held[block] = homes
        return budget

    def bring_home(self, weights: Iterable[Tensor]) -> None:
        """Have some weights on the host, where they may be changed: what a device has of them is forgotten.

        Blocks that had one of them are held no longer; `hold` copies what they have become.
        """
        self.forget()
        changing = {id(weight) for weight in weights}
        for block, homes in list(self._held.items()):
            if any(id(weight) in changing for weight, _ in homes):
                self._let_go(block)

    def forget(self) -> None:
        """Read the weights of every block that streams anew.

        A block that a signal stopped, of which hooks are not told, gives its slot up here.
        """
        self._last = None
        for slot in self._slots:
            self._empty(slot)
            slot.block = None

    def _let_go(self, block: nn.Module) -> None:
        for weight, home in self._held.pop(block):
            _point(weight, home)

    def _bring(self, block: nn.Module) -> None:
        """Have the weights of a block that is about to run."""
        if block in self._held:
            return
        slot = self._slot_of(block)
        if self._last is not None:
            self._next[self._last] = ref(block)
        self._last = block
        # The host goes on; the block's kernels begin when the copy has ended.
        self._ours().hold_back(slot.filled)
        slot.homes = [(weight, weight.data) for weight in passing_weights(block)]
        for (weight, home), begin in zip(slot.homes, _layout(block)[0], strict=True):
            _point(weight, slot.data[begin : begin + home.nbytes].view(home.dtype).view(home.shape))

    def _leave(self, block: nn.Module) -> None:
        """Give up the slot, also when the block failed half-way: what was given to the device still runs."""
        for slot in self._slots:
            if slot.block is block:
                self._empty(slot)

    def _empty(self, slot: _Slot) -> None:
        if slot.homes:
            for weight, home in slot.homes:
                _point(weight, home)
            slot.homes = []
            slot.free = self._ours().mark()

    def _bring_next(self, block: nn.Module) -> None:
        """Copy what will run next, beside what runs now. A wrong guess costs a copy, and nothing else."""
        following = self._next[block]() if block in self._next else None
        if block is self._last and following is not None and following not in self._held:
            self._slot_of(following)

    def _slot_of(self, block: nn.Module) -> _Slot:
        """The slot that has this block; else the one that was used longest ago, which is filled."""
        self._reserve()
        known = [slot for slot in self._slots if slot.block is block]
        slot = known[0] if known else self._slots[0]
        if not known:
            self._fill(slot, block)
        self._slots.remove(slot)
        self._slots.append(slot)
        return slot

    def _fill(self, slot: _Slot, block: nn.Module) -> None:
        streams = self._ours()
        # Should anything below fail, nobody takes what is in the slot for a block.
        slot.block = None
        # The staging is written by the host, at once: not before the last copy from it has ended.
        streams.wait(slot.filled)
        begins, size = _layout(block)
        for weight, begin in zip(passing_weights(block), begins, strict=True):
            numbers = weight.data.contiguous().reshape(-1).view(torch.uint8)
            slot.staging[begin : begin + len(numbers)].copy_(numbers)
        # The slot is written by the device: not before the last forward that reads it has ended.
        slot.filled = streams.copy(slot.data[:size], slot.staging[:size], slot.free)
        slot.block = block

    def _reserve(self) -> None:
        """Have slots of the size that the largest block needs."""
        if self._slots and len(self._slots[0].data) >= self._size:
            return
        for slot in self._slots:
            # A slot's memory goes back to what serves the computation, while the copies may still write it.
            self._ours().wait(slot.filled)
        self._slots = []
        self._slots = [_Slot(self._size, self._device, self._ours()) for _ in range(SLOTS)]

    def _ours(self) -> Streams:
        if self._streams is None:
            self._streams = CudaStreams(self._device) if self._device.type == "cuda" else DirectStreams()
        return self._streams


def block_bytes(block: nn.Module) -> int:
    """What the weights of a block take of a device while it is held."""
    return sum(weight.nbytes for weight in passing_weights(block))


def move_all_but(module: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Put what is in none of `blocks` on `device` for good."""
    streamed = {id(tensor) for block in blocks for tensor in passing_weights(block)}
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) not in streamed:
            _point(tensor, tensor.data.to(device))


def _layout(block: nn.Module) -> tuple[list[int], int]:
    """Where each weight of a block begins in a slot, and where the last one ends, in bytes."""
    begins, end = [], 0
    for weight in passing_weights(block):
        begins.append(-(-end // ALIGNMENT) * ALIGNMENT)
        end = begins[-1] + weight.nbytes
    return begins, end


def _point(tensor: Tensor, data: Tensor) -> None:
    """Have a weight keep its numbers elsewhere; what a compiler made of it stays good."""
    tensor.data = data
