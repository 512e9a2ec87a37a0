"""A process that tries the faster paths on one block: a crash, a hang or a missing compiler ends it alone.

    python -m models.inference.fast_path.canary TRIAL

TRIAL is a `Trial` as JSON. A layer and a control block of the model's width, with random weights, run as they
are written and in each of the trial's paths. For each a line of JSON comes out once it is known: `name`, and
`ms` and `error` (from float32, of its norm) or `fault`. What it has compiled is in inductor's folder then,
and serves the process that asked. It ends when its input does.
"""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from diffusers.models.controlnets.controlnet_z_image import ZImageControlTransformerBlock
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import Tensor, nn

from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.compilation import compile_blocks
from models.inference.denoise.paths import EAGER, FastPath, named
from models.inference.denoise.rounding import EightBits
from models.inference.device.attention import preferring
from models.inference.device.capture import capture

RUNS = 20
STD = 0.02
"""Of the random weights: never zeros, which a device multiplies with less power, and so faster."""


@dataclass(frozen=True)
class Trial:
    """What is tried: a model's widths and types, the numbers of tokens, and the names of paths."""

    device: str
    dtype: str
    dim: int
    heads: int
    eight_bits: EightBits | None
    tokens: tuple[int, ...]
    paths: tuple[str, ...]

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Self:
        told = json.loads(text)
        return cls(**told | {"tokens": tuple(told["tokens"]), "paths": tuple(told["paths"])})


def main(trial: Trial) -> None:
    blocks = _blocks(trial)
    with torch.no_grad():
        exact = _answers(_blocks(trial, exact=True), _inputs(trial, torch.float32))
        inputs = _inputs(trial, getattr(torch, trial.dtype))
        for path in (EAGER, *map(named, trial.paths)):
            print(json.dumps({"name": path.name} | _tried(path, blocks, inputs, exact)), flush=True)


def _tried(path: FastPath, blocks: nn.ModuleList, inputs: list[Any], exact: list[Tensor]) -> dict[str, Any]:
    """Milliseconds of a pass through both blocks at every number of tokens, and the error; or the fault."""
    if path.compiled:
        torch.compiler.reset()
    try:
        compile_blocks(blocks, compiled=path.compiled, swiglu=path.swiglu)
        with preferring(path.attention):
            run = _captured(blocks, inputs) if path.captured else partial(_answers, blocks, inputs)
            error = max(_distance(*pair) for pair in zip(run(), exact, strict=True))
            return {"ms": 1000 * _median_seconds(run), "error": error}
    except Exception as fault:
        return {"fault": f"{type(fault).__name__}: {str(fault).strip().splitlines()[0]}"}


def _blocks(trial: Trial, *, exact: bool = False) -> nn.ModuleList:
    """A layer and a control block, the same at every call; `exact`: in float32, and not rounded."""
    kinds = ZImageTransformerBlock, ZImageControlTransformerBlock
    torch.manual_seed(1)
    made = [kind(0, trial.dim, trial.heads, trial.heads, 1e-5, True, True) for kind in kinds]
    dtype = torch.float32 if exact else getattr(torch, trial.dtype)
    for parameter in nn.ModuleList(made).parameters():
        values = torch.ones_like(parameter) if parameter.dim() == 1 else torch.randn_like(parameter) * STD
        parameter.data = values.to(getattr(torch, trial.dtype)).to(dtype)
    blocks = use_own_blocks(nn.ModuleList(made)).requires_grad_(False).eval()
    if trial.eight_bits and not exact:
        round_blocks(blocks, trial.eight_bits)
    return blocks.to(trial.device)


def _inputs(trial: Trial, dtype: torch.dtype) -> list[Any]:
    """Tokens, rotary factors and the timestep's, for each number of tokens."""
    random = torch.Generator().manual_seed(2)
    made = []
    for count in trial.tokens:
        turns = torch.randn(1, count, 1, trial.dim // trial.heads // 2, generator=random)
        rope = torch.stack([turns.cos(), turns.sin()], -1)
        x = torch.randn(1, count, trial.dim, generator=random).to(dtype)
        factors = (0.5 + torch.rand(4, 1, trial.dim, generator=random)).to(dtype)
        made.append(tuple(part.to(trial.device) for part in (x, rope, factors)))
    return made


def _answers(blocks: nn.ModuleList, inputs: list[Any]) -> list[Tensor]:
    return [_answer(blocks, *given) for given in inputs]


def _answer(blocks: nn.ModuleList, x: Tensor, rope: Tensor, factors: Tensor) -> Tensor:
    layer, control = blocks
    hint, _ = control(x, x, rope, factors)
    answer: Tensor = (layer(x, rope, factors) + hint).float()
    return answer


def _captured(blocks: nn.ModuleList, inputs: list[Any]) -> Callable[[], list[Tensor]]:
    """The same by one CUDA graph for each number of tokens, good until the next call."""
    _answers(blocks, inputs)
    graphs = [capture(partial(_answer, blocks, *given), given[0].device) for given in inputs]

    def run() -> list[Tensor]:
        for graph, _ in graphs:
            graph.replay()
        return [answer for _, answer in graphs]

    return run


def _distance(found: Tensor, exact: Tensor) -> float:
    distance = ((found - exact).norm() / exact.norm()).item()
    return distance if torch.isfinite(found).all() else float("inf")


def _median_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        _wait()
        begun = time.perf_counter()
        work()
        _wait()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def _wait() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    os.nice(10)
    threading.Thread(target=_end_with_input, daemon=True).start()
    main(Trial.of_json(sys.argv[1]))
