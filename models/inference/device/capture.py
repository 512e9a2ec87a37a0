"""The capture of what a device is given to do as a CUDA graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 2
"""Runs before a graph is captured, in which the libraries make their plans and take their memory."""


def capture(
    run: Callable[[], Tensor], device: torch.device, *, warm_ups: int = WARM_UPS, pool: Any = None
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A graph of what `run` gives the device to do, and the tensor that it writes each time.

    `pool` is that of another graph, whose memory it may write over, or a pool of its own. What is raised
    passes through, and `run` can be done without a graph: a device that is past help says so then.
    """
    if warm_ups:
        now = torch.cuda.current_stream(device)
        # As PyTorch's documentation has it: not on the stream that others use.
        aside: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            for _ in range(warm_ups):
                run()
        now.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # PyTorch captures the current device: of what another one is given to do the graph would have nothing.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        try:
            # By itself PyTorch would have the capture fail by what another thread asks the driver meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                result = run()
        except BaseException:
            # Else memory might still be taken from its pool. The stream is put back by the block around this:
            # PyTorch leaves its own where a capture does not begin, and before 2.15 where it does not end.
            graph.reset()
            raise
    return graph, result
