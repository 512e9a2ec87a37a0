"""The text encoder's layers as CUDA graphs: its kernels take the host longer to launch than a GPU to run."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.inference.device.capture import capture

LENGTHS = (32, 64, 96, 128, 256, 512)
"""Tokens that there is a graph for; a prompt takes the next longer one. It is filled up behind its end, which
a causal model never looks at."""

log = logging.getLogger(__name__)


class PromptGraph(NamedTuple):
    """A captured run: what it reads, and where it writes."""

    graph: torch.cuda.CUDAGraph
    tokens: Tensor
    hidden: Tensor


class PromptGraphs:
    """Graphs of `run`, (1, tokens) to (1, tokens, width), on a GPU where all its weights stay in their place.

    Each is captured with the first prompt of its length. Where that fails there are none from then on.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._run = run
        self._device = device
        self._graphs: dict[int, PromptGraph] = {}
        self._works = True

    def __call__(self, tokens: Tensor) -> Tensor | None:
        """What `run` gives for tokens in host memory, good until the next call; None: there is no graph."""
        length = next((length for length in LENGTHS if length >= tokens.shape[1]), None)
        if length is None or not self._works:
            return None
        try:
            if length not in self._graphs:
                self._graphs[length] = self._capture(length)
            graph, given, hidden = self._graphs[length]
            filled = F.pad(tokens, (0, length - tokens.shape[1]))
            given.copy_(filled.pin_memory(), non_blocking=True)
            graph.replay()
        except Exception as error:  # whatever it is, the same is done without
            log.warning("The text encoder runs without CUDA graphs: %s", str(error).partition("\n")[0])
            self._works = False
            self._graphs.clear()
            return None
        return hidden[:, : tokens.shape[1]]

    def _capture(self, length: int) -> PromptGraph:
        tokens = torch.zeros(1, length, dtype=torch.long, device=self._device)
        graph, hidden = capture(lambda: self._run(tokens), self._device)
        return PromptGraph(graph, tokens, hidden)
