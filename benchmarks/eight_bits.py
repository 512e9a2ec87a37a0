"""One block of the published width in 8 bits against bfloat16, on random weights, in turns.

    python -m benchmarks.eight_bits [--rounds N] [--tokens 288 1056 4128]

The tokens are those of pictures of 256, 512 and 1024 pixels square with a caption of 32. Also run in turns is
diffusers' own block in bfloat16. Times are of the processor, on one thread: other work on the machine
disturbs them little. A ratio is the median over the rounds of one side's time by another's of the same round.
"""

import copy
import statistics
import time
from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import nn

from benchmarks.random_models import fill_at_random
from benchmarks.run import option_parser, write_row
from models.inference.denoise.blocks import round_blocks, use_own_blocks

WIDTH, HEADS, TIME_WIDTH = 3840, 30, 256
TOKENS = (288, 1056, 4128)


def sides(tokens: int) -> dict[str, Any]:
    """What each side runs, by its name; all on the same weights."""
    with torch.device("meta"):
        block = ZImageTransformerBlock(5, WIDTH, HEADS, HEADS, 1e-5, True, True)
    theirs = fill_at_random(block, torch.bfloat16, "cpu")
    ours = use_own_blocks(nn.Sequential(copy.copy(theirs)))
    rounded = round_blocks(copy.deepcopy(ours))
    x = torch.randn(1, tokens, WIDTH).bfloat16()
    moment = torch.randn(1, TIME_WIDTH).bfloat16()
    turns = torch.randn(1, tokens, WIDTH // HEADS // 2)
    angles = torch.polar(torch.ones_like(turns), turns)
    rope = torch.view_as_real(angles[:, :, None])
    return {
        "diffusers bfloat16": lambda: theirs(x, None, angles, moment),
        "bfloat16": lambda: ours[0](x, rope, moment),
        "int8": lambda: rounded[0](x, rope, moment),
    }


def measure(tokens: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each side, ratios, and how far 8 bits are from bfloat16."""
    runs = sides(tokens)
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
    for other in ("diffusers bfloat16", "bfloat16"):
        pairs = zip(seconds["int8"], seconds[other], strict=True)
        figures[f"int8 to {other}"] = round(statistics.median(one / two for one, two in pairs), 3)
    exact = outputs["bfloat16"].float()
    figures["int8 from bfloat16"] = float(f"{((outputs['int8'] - exact).norm() / exact.norm()).item():.1e}")
    return figures


def main() -> None:
    parser = option_parser("eight_bits", __doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        for tokens in options.tokens:
            write_row("eight_bits.jsonl", {"tokens": tokens, **measure(tokens, options.rounds)})


if __name__ == "__main__":
    main()
