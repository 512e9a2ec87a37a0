"""Denoising steps as CUDA graphs: a whole step is one launch, where compiled blocks are 400.

A graph has in it all that Python decided when it was captured: the shapes, the weights' addresses, whether
the control branch runs, and how strongly. It is good for steps in which all of this is the same, and each
such kind of step has its own; latents, timestep, caption and control tokens are copied to where it reads
them. What a schedule does with the prediction stays outside. Not yet tried on a GPU.
"""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from models.inference.denoise.beside import LoraLayer
from models.inference.denoise.modulation import Modulation
from models.inference.denoise.transformer import Conditioning, Control, predict
from models.inference.device.capture import capture

USES = 40
"""Steps of a kind before one is captured: five pictures. To capture takes about as long as 75 steps gain by
it (docs/performance.md), and what came so often is likely to come on."""
BACK_OFF = 4
"""Every time that memory runs out and graphs go it takes so many times as many."""
KEPT = 8
"""Graphs at a time; the one that was used longest ago goes first."""
COUNTED = 64
"""Kinds of steps whose uses are counted."""


class StepGraph(NamedTuple):
    """A captured step: what it reads, and where it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class StepGraphs:
    """The graphs of one device. Not for two threads at once.

    Each has its inputs, 8 MB at 1024x1024, or 40 with a control branch, and its kernels' arguments. What lies
    between inputs and output is in one pool of memory that all share, as they run one after the other: it has
    what the largest step needs, 0.6 GB at 1024x1024, and is held as long as there is a graph.
    """

    def __init__(self, device: torch.device, uses: int | None = None) -> None:
        self._device = device
        self._uses = USES if uses is None else uses
        self._used: dict[Hashable, int] = {}
        """How often each kind of step came that has no graph, in the order of their last use."""
        self._graphs: dict[Hashable, StepGraph] = {}
        """The graphs, in the order of their last use."""
        self._parts: WeakKeyDictionary[nn.Module, tuple[list[Tensor], list[LoraLayer]]] = WeakKeyDictionary()

    def __call__(
        self,
        transformer: Any,
        conditioning: Conditioning,
        latents: Tensor,
        modulation: Modulation,
        control: Control | None = None,
    ) -> Tensor | None:
        """What `predict` gives of latents (batch, 16, height, width), or None, where there is no such graph.

        `modulation` is that of one timestep. Raises RuntimeError where a graph cannot be captured or run, and
        is not to be called again then; but for `OutOfMemoryError`, after which to `give_up` is enough.
        """
        step = transformer, conditioning, latents, modulation, control
        inputs = _inputs(*step[1:])
        kind = self._kind(transformer, inputs, control)
        known = self._graphs.pop(kind, None)
        if known is None:
            if not self._is_worth_it(kind):
                return None
            known = self._capture(*step)
        self._graphs[kind] = known
        if len(self._graphs) > KEPT:
            del self._graphs[next(iter(self._graphs))]
        for there, given in zip(known.inputs, inputs, strict=True):
            there.copy_(given)
        known.graph.replay()
        # The next step writes where this one is.
        return known.output.clone()

    def give_up(self) -> None:
        """Let go of all graphs, as memory has run out, and be slower to capture the next ones."""
        if self._graphs:
            self._uses *= BACK_OFF
            if self._device.type == "cuda":
                # One may be running, on another stream than the one that its memory is known to be used on.
                torch.cuda.synchronize(self._device)
        self._graphs.clear()
        self._used.clear()

    def _is_worth_it(self, kind: Hashable) -> bool:
        times = self._used.pop(kind, 0)
        if times >= self._uses:
            return True
        self._used[kind] = times + 1
        if len(self._used) > COUNTED:
            del self._used[next(iter(self._used))]
        return False

    def _kind(self, transformer: nn.Module, inputs: list[Tensor], control: Control | None) -> Hashable:
        """All that a graph of this step would have in it."""
        models = [transformer] if control is None else [transformer, control.controlnet]
        return (
            *((each.shape, each.stride(), each.dtype) for each in inputs),
            *(self._addresses(model) for model in models),
            # Another branch may come to lie where this one was.
            control and (ref(control.controlnet), control.scale),
        )

    def _addresses(self, model: nn.Module) -> Hashable:
        """Give the addresses of all weights, and addresses and shapes of the LoRA factors beside them."""
        if model not in self._parts:
            layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
            self._parts[model] = [*model.parameters()], layers
        weights, layers = self._parts[model]
        beside = [factor for layer in layers for factor in (layer.down, layer.up) if factor is not None]
        return (
            *(weight.data_ptr() for weight in weights),
            *((factor.data_ptr(), factor.shape) for factor in beside),
        )

    def _capture(
        self,
        transformer: Any,
        conditioning: Conditioning,
        latents: Tensor,
        modulation: Modulation,
        control: Control | None,
    ) -> StepGraph:
        static = (
            Conditioning(*(each.clone() for each in vars(conditioning).values())),
            latents.clone(),
            modulation.clone(),
            control and replace(control, tokens=control.tokens.clone()),
        )
        # Without a warm-up: the same kernels have run in the steps before.
        pool = next((each.graph.pool() for each in self._graphs.values()), None)
        graph, output = capture(lambda: predict(transformer, *static), self._device, warm_ups=0, pool=pool)
        return StepGraph(graph, _inputs(*static), output)


def _inputs(
    conditioning: Conditioning, latents: Tensor, modulation: Modulation, control: Control | None
) -> list[Tensor]:
    """The tensors that a step reads and that are no weights."""
    known = latents, modulation.numbers, conditioning.caption, conditioning.image_rope, conditioning.rope
    return [*known, *([control.tokens] if control else [])]
