"""One block of the published width in 8 bits against bfloat16, on random weights, in turns.

    python -m benchmarks.eight_bits [--openvino] [--check] [--rounds N] [--tokens 288 1056 4128]

The tokens are those of pictures of 256, 512 and 1024 pixels square with a caption of 32. Also run in turns
are diffusers' own block in bfloat16 and, with --openvino, the same block by OpenVINO: weights in 8 bits by
nncf, its activations in 8 bits by groups of 128. Both packages belong in an environment of their own:

    uv venv /tmp/peers && VIRTUAL_ENV=/tmp/peers uv pip install -r requirements/worker.txt openvino nncf
    /tmp/peers/bin/python -m benchmarks.eight_bits --openvino

Times are of the processor, on one thread: other work on the machine disturbs them little. A ratio is the
median over the rounds of one side's time by another's of the same round.
"""

import copy
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import Tensor, nn

from benchmarks.random_models import fill_at_random
from benchmarks.run import option_parser, write_row
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.device.host_memory import keep_freed_memory

WIDTH, HEADS, TIME_WIDTH = 3840, 30, 256
TOKENS = (288, 1056, 4128)
BOUNDS = {"int8 to diffusers bfloat16": 0.50, "int8 to openvino": 1.0}
"""Largest ratios that `--check` lets pass."""


def sides(tokens: int, *, openvino: bool) -> dict[str, Any]:
    """What each side runs, by its name; all on the same weights."""
    with torch.device("meta"):
        block = ZImageTransformerBlock(5, WIDTH, HEADS, HEADS, 1e-5, True, True)
    theirs = fill_at_random(block, torch.bfloat16, "cpu")
    ours = use_own_blocks(nn.Sequential(copy.copy(theirs)))
    rounded = round_blocks(copy.deepcopy(ours), "int8")
    x = torch.randn(1, tokens, WIDTH).bfloat16()
    moment = torch.randn(1, TIME_WIDTH).bfloat16()
    factors = torch.randn(4, 1, WIDTH).bfloat16()
    turns = torch.randn(1, tokens, WIDTH // HEADS // 2)
    angles = torch.polar(torch.ones_like(turns), turns)
    rope = torch.view_as_real(angles[:, :, None])
    runs = {
        "diffusers bfloat16": lambda: theirs(x, None, angles, moment),
        "bfloat16": lambda: ours[0](x, rope, factors),
        "int8": lambda: rounded[0](x, rope, factors),
    }
    if openvino:
        runs["openvino"] = by_openvino(ours[0], x, rope, factors)
    return runs


def by_openvino(block: nn.Module, *inputs: Tensor) -> Any:
    """The block as OpenVINO runs it on one thread."""
    import nncf  # type: ignore[import-not-found]
    import openvino  # type: ignore[import-not-found]

    floats = tuple(part.float() for part in inputs)
    with rotated_in_reals():
        model = openvino.convert_model(copy.deepcopy(block).float(), example_input=floats)
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "bf16",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128",
        },
    )
    arrays = [np.asarray(part) for part in floats]
    return lambda: torch.from_numpy(compiled(arrays)[0])


@contextmanager
def rotated_in_reals() -> Iterator[None]:
    """Blocks compute the rotary product in reals within, since OpenVINO has no complex numbers."""
    with patch("torch.compiler.is_compiling", return_value=True):
        yield


def measure(tokens: int, rounds: int, *, openvino: bool = False) -> dict[str, Any]:
    """Milliseconds of each side, ratios, and how far 8 bits are from bfloat16."""
    runs = sides(tokens, openvino=openvino)
    outputs = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    figures: dict[str, Any] = {
        f"{name}, ms": round(statistics.median(times) * 1000) for name, times in seconds.items()
    }
    for other in runs:
        if other != "int8":
            pairs = zip(seconds["int8"], seconds[other], strict=True)
            figures[f"int8 to {other}"] = round(statistics.median(one / two for one, two in pairs), 3)
    exact = outputs.pop("bfloat16").float()
    for name in outputs.keys() - {"diffusers bfloat16"}:
        error = ((outputs[name] - exact).norm() / exact.norm()).item()
        figures[f"{name} from bfloat16"] = float(f"{error:.1e}")
    return figures


def main() -> int:
    parser = option_parser("eight_bits", __doc__ or "", check="when a ratio is above its bound")
    parser.add_argument("--openvino", action="store_true", help="with OpenVINO's block beside")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    # For all sides, as the server has it.
    keep_freed_memory()
    missed: list[str] = []
    with torch.no_grad():
        for tokens in options.tokens:
            figures = measure(tokens, options.rounds, openvino=options.openvino)
            write_row("eight_bits.jsonl", {"tokens": tokens, **figures})
            missed += [
                f"{tokens} tokens, {name}: {figures[name]} > {bound}"
                for name, bound in BOUNDS.items()
                if figures.get(name, 0) > bound
            ]
    print(*missed, sep="\n")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
