"""The denoising steps that a device is given, one of which may be under way while the next is handed over."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from models.inference.device.devices import wait
from models.job import KeepGoing


class Steps:
    """The steps of one device. On a CUDA GPU the host runs one step ahead, so that it always has work."""

    def __init__(self, device: torch.device) -> None:
        self.run_ahead = device.type == "cuda"
        self._device = device
        self._last: torch.cuda.Event | None = None
        self._side: torch.cuda.Stream | None = None

    def end(self) -> None:
        """The host has handed a step over: wait until it is done or, where it runs ahead, the one before."""
        if not self.run_ahead:
            self.wait()
            return
        handed_over = torch.cuda.Event()  # type: ignore[no-untyped-call]
        handed_over.record(torch.cuda.current_stream(self._device))
        before, self._last = self._last, handed_over
        if before is not None:
            before.synchronize()

    def wait(self) -> None:
        """Wait until all that the device was given is done."""
        wait(self._device)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Within the block what is done is not done behind the step under way, and must not need it."""
        if not self.run_ahead:
            yield
            return
        self._side = self._side or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._side):
            yield

    @contextmanager
    def saying(self, keep_going: KeepGoing) -> Iterator[None]:
        """Within the block a processor or Apple's GPU calls it before every layer: a step may take minutes.

        A CUDA GPU's steps are short.
        """
        if self.run_ahead:
            yield
            return

        def say(module: nn.Module, inputs: Any) -> None:
            # What it was given a GPU does in silence. The parts of a layer are many and short.
            if next(module.children(), None) is not None:
                self.wait()
            keep_going()

        hook = register_module_forward_pre_hook(say)
        try:
            yield
        finally:
            hook.remove()
