"""Seconds, forwards and memory of pictures made by the server's engine."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from models.inference.device.loaded_model import LoadedModel
from models.inference.engine import Engine
from models.job import Facts, Job, Pixels

WARM_UP = 2

DRIVER_SHARE = 0.97
"""The share of a card's memory that a process finds free."""


def control_picture(side: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], runs: int, device: str) -> list[float]:
    """Seconds of each run, the device's work included, after runs that do not count."""
    for _ in range(WARM_UP if runs > 1 else 0):
        work()
    seconds = []
    for _ in range(runs):
        synchronize(device)
        begun = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return seconds


def spread(seconds: list[float]) -> dict[str, float]:
    ranked = sorted(seconds)
    return {"p50 s": round(median(ranked), 4), "p90 s": round(ranked[len(ranked) * 9 // 10], 4)}


@contextmanager
def peak_memory(figures: dict[str, Any], device: str) -> Iterator[None]:
    """Puts a GPU's peaks within the block into `figures`; nothing on a CPU."""
    if not device.startswith("cuda"):
        yield
        return
    # What was reserved for what came before is no part of this.
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    yield
    figures["peak allocated GB"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    figures["peak reserved GB"] = round(torch.cuda.max_memory_reserved(device) / 1e9, 2)


def cap_memory(device: str, size: int, share: float) -> None:
    """Have this process see a card of `size` bytes, of which it may have `share`, for as long as it lives."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(size / total, device)
    free = int(size * share)
    # The driver tells of the whole card.
    patch.object(
        torch.cuda, "mem_get_info", lambda *_: (max(free - torch.cuda.memory_reserved(device), 0), size)
    ).start()


@contextmanager
def counted_forwards() -> Iterator[Counter[str]]:
    """Counts steps of the pipeline, all and those with a control branch."""
    counts: Counter[str] = Counter()

    def counting(model: LoadedModel, *step: Any) -> Any:
        counts["forwards"] += 1
        counts["controlled"] += step[-1] is not None
        return predict(model, *step)

    predict = LoadedModel.predict
    with patch.object(LoadedModel, "predict", counting):
        yield counts


def measure_pictures(engine: Engine, job: Job, runs: int) -> dict[str, Any]:
    """End to end and by stage, medians; what ran, and the memory it took.

    `path` is how the blocks ran, which is not what was asked for where that has failed.
    """
    control = control_picture(job.width) if job.controlnet else None
    told: list[Facts] = []

    def draw() -> None:
        told.append(engine.generate(job, control, lambda step: None).facts)

    with counted_forwards() as counts:
        draw()
    figures: dict[str, Any] = {"forwards": 0, "controlled": 0, **counts}
    with peak_memory(figures, engine.device):
        figures |= spread(timed(draw, runs, engine.device))
    figures["path"] = ", then ".join(dict.fromkeys(str(facts.fast_path) for facts in told[-runs:]))
    kept = [facts.timings for facts in told[-runs:]]
    figures |= {f"{stage} s": round(median(each[stage] for each in kept), 4) for stage in kept[0]}
    figures["step s"] = round(figures["denoise s"] / job.num_inference_steps, 4)
    return figures


def peak_rate(side: int, device: str, dtype: torch.dtype) -> float:
    """Operations a second in a large product: what is called the peak here."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(timed(lambda: left @ right, 5, device))
