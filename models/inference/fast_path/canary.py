"""A process that tries the faster paths on a sample: a crash, a hang or a missing compiler ends it alone.

    python -m models.inference.fast_path.canary TRIAL

TRIAL is a `Trial` as JSON. The sample runs as it is written and in each of the trial's paths. For each a line
of JSON comes out once it is known: `name`, and `ms` and `error` (from float32, of its norm) or `fault`. What
is told has all its code in inductor's folder by then, where the process that asked finds it. The process ends
when its input does.
"""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.inference.denoise.compilation import compile_blocks, compile_decoder, warm_up
from models.inference.denoise.paths import EAGER, FastPath, named
from models.inference.device.attention import preferring
from models.inference.device.capture import capture
from models.inference.device.devices import free_cache
from models.inference.device.out_of_memory import is_out_of_memory
from models.inference.fast_path.sample import Inputs, Sample, Trial, answer, exact_sample, inputs, sample

RUNS = 20


def main(trial: Trial) -> None:
    if trial.device.startswith("cuda"):
        # As the server has it.
        torch.backends.cudnn.deterministic = True
    with torch.no_grad():
        exact = _answers(exact_sample(trial), inputs(trial, torch.float32))
        free_cache()
        model, given = sample(trial), inputs(trial, getattr(torch, trial.dtype))
        known = EAGER
        for path in (EAGER, *map(named, trial.paths)):
            if path.compiled and path.uncaptured() != known:
                # PyTorch does not ask what code is for that it has in memory.
                torch.compiler.reset()
                known = path.uncaptured()
            print(json.dumps({"name": path.name} | _tried(path, model, given, exact)), flush=True)


def _tried(path: FastPath, model: Sample, given: Sequence[Inputs], exact: list[Tensor]) -> dict[str, Any]:
    """Milliseconds of a pass through both blocks at every number of tokens, and the error; or the fault.

    Want of memory is none of the path's, and passes through.
    """
    try:
        with preferring(path.attention):
            _compile(path, model)
            run = _captured(model, given) if path.captured else partial(_answers, model, given)
            error = max(_distance(*pair) for pair in zip(run(), exact, strict=True))
            device = model.transformer.x_pad_token.device
            return {"ms": 1000 * _median_seconds(run, device), "error": error}
    except Exception as fault:
        if is_out_of_memory(fault):
            raise
        return {"fault": f"{type(fault).__name__}: {str(fault).strip().splitlines()[0]}"}


def _compile(path: FastPath, model: Sample) -> None:
    """Have the sample run in this way. Here is compiled what the server will run, and nothing after it."""
    for part in (model.transformer, model.controlnet):
        compile_blocks(part, compiled=path.compiled, swiglu=path.swiglu)
    if model.vae is not None:
        compile_decoder(model.vae, compiled=path.compiled)
    if path.compiled:
        warm_up(model.transformer, model.controlnet, model.transformer.x_pad_token.device, model.vae)


def _answers(model: Sample, given: Sequence[Inputs]) -> list[Tensor]:
    return [answer(model, each) for each in given]


def _captured(model: Sample, given: Sequence[Inputs]) -> Callable[[], list[Tensor]]:
    """The same by one CUDA graph for each number of tokens, good until the next call."""
    _answers(model, given)
    graphs = [capture(partial(answer, model, each), each.x.device) for each in given]

    def run() -> list[Tensor]:
        for graph, _ in graphs:
            graph.replay()
        return [made for _, made in graphs]

    return run


def _distance(found: Tensor, exact: Tensor) -> float:
    distance = ((found - exact).norm() / exact.norm()).item()
    return distance if torch.isfinite(found).all() else float("inf")


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    seconds = []
    for _ in range(RUNS):
        _wait(device)
        begun = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        # Not the current one, which is another where a server has a card of several.
        torch.cuda.synchronize(device)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    os.nice(10)
    threading.Thread(target=_end_with_input, daemon=True).start()
    main(Trial.of_json(sys.argv[1]))
