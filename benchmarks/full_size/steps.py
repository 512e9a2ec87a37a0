"""A step of the published size against diffusers in bfloat16, on the same weights, in turns.

    python -m benchmarks.full_size.steps FOLDER [--check] [--sides 256 512] [--rounds N]

takes the weights that `python -m benchmarks.full_size` writes. Our sides are the server's own: bfloat16 from
the mapped files, which diffusers' model then shares, and 8 bits from the mapped copy, which is made if it is
not there. No step is controlled: diffusers' text to image pipeline has no control. A ratio is the median over
the rounds of one side's seconds by diffusers' of the same round. What is timed is the second of two steps,
as most of a picture's are: the machine takes back mapped pages of who has not run, and the first reads them.
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.denoise import race
from benchmarks.random_models import twin
from benchmarks.run import option_parser, write_row
from models.config import ModelSettings
from models.inference.denoise.pipeline import draw_noise
from models.inference.denoise.transformer import condition, predict
from models.inference.device.loaded_model import LoadedModel

PROMPT_TOKENS = 28
TIMESTEP = 0.5
BOUNDS = {"bfloat16": 0.88, "int8": 0.50}
"""Largest ratios to diffusers that `--check` lets pass."""


def load(folder: Path, precision: str) -> LoadedModel:
    types: dict[str, Any] = {"dtype": precision, "quantization": "off"}
    if precision == "int8":
        types = {"dtype": "auto", "quantization": "int8"}
    settings = ModelSettings(model=str(folder / "model"), data_dir=folder / "data", device="cpu", **types)
    return LoadedModel.load(folder / "model", None, settings)


def our_side(model: LoadedModel, embeds: Tensor, noise: Tensor) -> Callable[[], Tensor]:
    with model.denoiser(None) as (transformer, _), torch.no_grad():
        conditioning = condition(transformer, embeds, *noise.shape[-2:])

    @torch.no_grad()
    def step() -> Tensor:
        with model.denoiser(None) as (transformer, _):
            return predict(transformer, conditioning, noise, TIMESTEP)

    return step


def diffusers_side(transformer: Any, embeds: Tensor, noise: Tensor) -> Callable[[], Tensor]:
    time = torch.tensor([TIMESTEP])

    @torch.no_grad()
    def step() -> Tensor:
        (output,) = transformer([noise.bfloat16().transpose(0, 1)], time, [embeds.bfloat16()])[0]
        answer: Tensor = output.transpose(0, 1).float()
        return answer

    return step


def measure(models: dict[str, LoadedModel], side: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step of each, ratios to diffusers', and how far our answers are from its."""
    embeds = torch.randn(PROMPT_TOKENS, models["bfloat16"].transformer.config.cap_feat_dim)
    noise = draw_noise(1, 16, side // 8, side // 8)
    sides = {"diffusers": diffusers_side(twin(models["bfloat16"].transformer), embeds, noise)}
    sides |= {name: our_side(model, embeds, noise) for name, model in models.items()}
    answers = {name: step() for name, step in sides.items()}
    seconds = race(sides, rounds, settled=True)
    theirs = answers["diffusers"]
    return (
        {f"{name}, s": round(statistics.median(each), 2) for name, each in seconds.items()}
        | {
            f"{name} to diffusers": round(
                statistics.median(
                    ours / other for ours, other in zip(seconds[name], seconds["diffusers"], strict=True)
                ),
                3,
            )
            for name in models
        }
        | {
            f"{name} from diffusers": float(f"{((answers[name] - theirs).norm() / theirs.norm()).item():.1e}")
            for name in models
        }
    )


def main(argv: list[str] | None = None) -> int:
    parser = option_parser("full_size.steps", __doc__ or "", check="when a ratio is above its bound")
    parser.add_argument("folder", help="where the weights are")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    folder = Path(options.folder).expanduser().resolve()
    models = {dtype: load(folder, dtype) for dtype in BOUNDS}
    missed = []
    for side in options.sides:
        figures = measure(models, side, options.rounds)
        threads = torch.get_num_threads()
        write_row("steps.jsonl", {"side": side, "rounds": options.rounds, "threads": threads, **figures})
        missed += [
            f"{side} pixels, {name}: {figures[f'{name} to diffusers']} > {bound}"
            for name, bound in BOUNDS.items()
            if figures[f"{name} to diffusers"] > bound
        ]
    print(*missed, sep="\n")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
