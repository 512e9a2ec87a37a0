"""A graphics card that is not there: PyTorch's CUDA functions, answered for tensors that have no values."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.gpu.measure import DRIVER_SHARE
from benchmarks.gpu_rehearsal.counter import Counts, Kernel, Recorder, Substitutes
from models.inference.device import loaded_model

HOST_BYTES = 64 * 10**9
"""Free beside the card."""


@contextmanager
def fake_card(gigabytes: float, capability: tuple[int, int] = (9, 0)) -> Iterator[Recorder]:
    """Within the block PyTorch sees one GPU; what it is given to do is counted and not done."""
    recorder = Recorder()
    with ExitStack() as stack:
        stack.enter_context(answers(recorder, gigabytes, capability))
        stack.enter_context(patch.object(nn.Module, "_apply", _apply))
        fakes = FakeTensorMode(allow_non_fake_inputs=True)
        for mode in (fakes, recorder, Substitutes(recorder), torch.no_grad()):
            stack.enter_context(mode)
        yield recorder


@contextmanager
def answers(recorder: Recorder, gigabytes: float, capability: tuple[int, int]) -> Iterator[None]:
    """Within the block torch.cuda tells of one GPU."""
    total = int(gigabytes * 2**30)
    free = int(total * DRIVER_SHARE)
    stand_ins: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": lambda _: nullcontext(),
        "get_device_name": lambda *_: f"{gigabytes:g} GB",
        "get_device_capability": lambda *_: capability,
        "get_device_properties": lambda *_: SimpleNamespace(
            total_memory=total, major=capability[0], minor=capability[1], multi_processor_count=132
        ),
        "mem_get_info": lambda *_: (free - recorder.live, total),
        "memory_allocated": lambda *_: recorder.live,
        "memory_reserved": lambda *_: recorder.live,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: recorder.wait(),
        "current_stream": lambda *_: FakeStream(recorder),
        "default_stream": lambda *_: FakeStream(recorder),
        "Stream": lambda *_, **__: FakeStream(recorder, aside=True),
        "Event": lambda *_, **__: FakeEvent(recorder),
        "stream": lambda stream: stream,
        "CUDAGraph": lambda *_, **__: FakeGraph(recorder),
        "graph": lambda graph, *_, **__: graph.capture(),
        "graph_pool_handle": lambda: (0, 0),
        "_lazy_init": lambda: None,
    }
    with ExitStack() as stack:
        stack.enter_context(patch.object(loaded_model, "host_free_bytes", lambda: HOST_BYTES))
        # The system is told of addresses, which tensors without values have none of.
        stack.enter_context(patch.object(loaded_model, "give_up_first", lambda _: None))
        stack.enter_context(patch.multiple(torch.cuda, **stand_ins))
        # Else what goes to the device would look for the driver.
        stack.enter_context(patch.object(FakeTensorMode, "avoid_device_init", property(lambda _: True)))
        yield


class FakeStream:
    """A queue of the device's. Whoever waits for one that is not the main one lets that one go on."""

    def __init__(self, recorder: Recorder, *, aside: bool = False) -> None:
        self._recorder = recorder
        self._aside = aside

    def __enter__(self) -> Self:
        self._recorder.aside += self._aside
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder.aside -= self._aside

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        event = event or FakeEvent(self._recorder)
        event.record()
        return event

    def synchronize(self) -> None:
        self._recorder.wait()


class FakeEvent:
    """A mark in a queue. To wait for it costs nothing while the device has more to do behind it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._launched = -1

    def record(self, stream: Any = None) -> None:
        self._launched = self._recorder.launched

    def wait(self, stream: Any = None) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        if self._launched == self._recorder.launched:
            self._recorder.wait()


class FakeGraph:
    """A CUDA graph: what is captured is launched as one, each time that it is replayed."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._captured: list[Kernel] = []

    @contextmanager
    def capture(self) -> Iterator[None]:
        around, counts = self._recorder.counts, Counts(peak=self._recorder.live)
        self._recorder.counts = counts
        try:
            yield
        finally:
            self._recorder.counts = around
        around.peak = max(around.peak, counts.peak)
        if counts.waits or counts.uploads:
            raise RuntimeError(f"CUDA error: not permitted while a stream is captured: {[*counts.waits]}")
        self._captured = counts.kernels

    def replay(self) -> None:
        assert self._captured
        self._recorder.counts.graphs += 1
        self._recorder.counts.replayed += self._captured
        self._recorder.launched += 1

    def pool(self) -> tuple[int, int]:
        return (0, 0)

    def reset(self) -> None: ...


def _apply(module: nn.Module, convert: Any, recurse: bool = True) -> nn.Module:
    """`nn.Module.to`, by which tensors without values keep their identity."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = convert(tensor.data)
    return module
