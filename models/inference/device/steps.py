"""The denoising steps that a device is given, one of which may be under way while the next is handed over."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Steps:
    """The steps of one device. On a GPU the host runs one step ahead of it, so that it always has work."""

    def __init__(self, device: torch.device) -> None:
        self.run_ahead = device.type == "cuda"
        self._device = device
        self._last: torch.cuda.Event | None = None
        self._side: torch.cuda.Stream | None = None

    def end(self) -> None:
        """The host has handed a step over: wait until the step before it is done."""
        if not self.run_ahead:
            return
        handed_over = torch.cuda.Event()  # type: ignore[no-untyped-call]
        handed_over.record(torch.cuda.current_stream(self._device))
        before, self._last = self._last, handed_over
        if before is not None:
            before.synchronize()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Within the block what is done is not done behind the step under way, and must not need it."""
        if not self.run_ahead:
            yield
            return
        self._side = self._side or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._side):
            yield
