"""Our denoising against diffusers' `ZImageControlNetPipeline` on the same random weights, in turns.

From a prompt's embedding and a control picture to latents: dim 512, 12 layers, Union 1.0 layout, 512x512, 8
steps, float32. diffusers controls every step; ours does so too, and again in the endpoint's default window, 0
to 0.4.

    python -m benchmarks.denoise [--compile] [--check] [--rounds N]

A ratio is the median over the rounds of one side's seconds by diffusers' of the same round. Beside it stands
that of each side's least seconds, which other work on the machine disturbs less.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageControlNetModel, ZImageControlNetPipeline
from torch import Tensor

from benchmarks.random_models import random_controlnet, random_transformer, random_vae, twin
from benchmarks.run import option_parser, write_row
from models.inference.control.controlnet import Layout
from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.compilation import compile_blocks
from models.inference.denoise.pipeline import denoise, draw_noise, encode_picture, noise_levels
from models.inference.denoise.transformer import Control, condition, control_tokens

SIZE = 512
STEPS = 8
CONFIG = {"dim": 512, "n_layers": 12, "n_heads": 4, "n_kv_heads": 4, "cap_feat_dim": 2560}
UNION_1_0 = Layout("1.0", (0, 5, 10), 16, None)
"""Every fifth layer has a control block, as published for 30 layers."""
PROMPT_TOKENS = 60
SCALE = 0.75
WINDOWS = {"all steps": (0.0, 1.0), "0 to 0.4": (0.0, 0.4)}

BOUNDS = {
    "ours, all steps": 0.88,
    "ours, 0 to 0.4": 0.76,
    "ours compiled, all steps": 0.75,
    "ours compiled, 0 to 0.4": 0.60,
}
"""Largest ratio to diffusers, uncompiled, that `--check` lets pass."""
TOLERANCE = 1e-4
"""Relative error of the latents, where the work is equal."""

Side = Callable[[], Tensor]


class Models:
    """One set of weights, and the inputs of one picture."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.transformer = random_transformer(CONFIG, torch.float32, "cpu")
        self.controlnet = random_controlnet(UNION_1_0, self.transformer.config, torch.float32, "cpu")
        self.vae = random_vae((16, 16, 16, 16), torch.float32, "cpu")
        self.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        self.prompt_embeds = torch.randn(PROMPT_TOKENS, CONFIG["cap_feat_dim"])
        self.picture = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        self.noise = draw_noise(1, 16, SIZE // 8, SIZE // 8)


def diffusers_side(models: Models, *, compiled: bool) -> Side:
    transformer: Any = twin(models.transformer)
    controlnet: Any = ZImageControlNetModel.from_transformer(twin(models.controlnet), transformer)
    if compiled:
        blocks = [*transformer.noise_refiner, *transformer.layers, *controlnet.control_layers]
        for block in [*blocks, *controlnet.control_noise_refiner]:
            block.compile(fullgraph=True, dynamic=False)
    parts = {"vae": models.vae, "scheduler": models.scheduler, "text_encoder": None, "tokenizer": None}
    pipeline: Any = ZImageControlNetPipeline(transformer=transformer, controlnet=controlnet, **parts)
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.from_numpy(models.picture).permute(2, 0, 1)[None] / 127.5 - 1

    def draw() -> Tensor:
        latents: Tensor = pipeline(
            prompt_embeds=[models.prompt_embeds], control_image=picture, controlnet_conditioning_scale=SCALE,
            latents=models.noise, width=SIZE, height=SIZE, num_inference_steps=STEPS, guidance_scale=0.0,
            output_type="latent",
        ).images  # fmt: skip
        return latents

    return draw


def our_side(models: Models, window: tuple[float, float], *, compiled: bool) -> Side:
    transformer = use_own_blocks(twin(models.transformer))
    controlnet = use_own_blocks(twin(models.controlnet))
    if compiled:
        for model in (transformer, controlnet):
            compile_blocks(model, compiled=True)

    @torch.no_grad()
    def draw() -> Tensor:
        latents = encode_picture(models.vae, models.picture)
        control = Control(controlnet, control_tokens(transformer, controlnet, latents), SCALE)
        conditioning = condition(transformer, models.prompt_embeds, SIZE // 8, SIZE // 8)
        sigmas = noise_levels(models.scheduler, STEPS)
        return denoise(transformer, conditioning, models.noise, sigmas, lambda *_: None, control, *window)

    return draw


def race(sides: dict[str, Side], rounds: int, *, settled: bool = False) -> dict[str, list[float]]:
    """Seconds of each side in each round, the order turned round from one round to the next.

    `settled`: each has a run that is not timed just before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for _ in range(rounds):
        for name in names:
            if settled:
                sides[name]()
            begun = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - begun)
        names.reverse()
    return seconds


def main(argv: list[str] | None = None) -> int:
    parser = option_parser("denoise", __doc__, check="when a ratio is above its bound")
    parser.add_argument(
        "--compile", action="store_true", help="with our blocks compiled, and diffusers' beside"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)

    load = round(os.getloadavg()[0], 1)
    models = Models()
    sides = {"diffusers": diffusers_side(models, compiled=False)}
    for name, window in WINDOWS.items():
        side = our_side(models, window, compiled=arguments.compile)
        sides[f"ours{' compiled' * arguments.compile}, {name}"] = side
    if arguments.compile:
        sides["diffusers compiled"] = diffusers_side(models, compiled=True)

    outputs = {name: draw() for name, draw in sides.items()}
    reference = outputs["diffusers"]
    errors = {
        name: ((outputs[name] - reference).norm() / reference.norm()).item()
        for name in outputs
        if name.endswith("all steps")
    }
    seconds = race(sides, arguments.rounds)
    ratios = {
        name: statistics.median(
            ours / theirs for ours, theirs in zip(seconds[name], seconds["diffusers"], strict=True)
        )
        for name in sides
        if name != "diffusers"
    }
    write_row(
        "denoise.jsonl",
        {"rounds": arguments.rounds, "load average at the start": load, "threads": torch.get_num_threads()}
        | {f"{name}, seconds": round(statistics.median(each), 2) for name, each in seconds.items()}
        | {f"{name}, ratio": round(ratio, 3) for name, ratio in ratios.items()}
        | {
            f"{name}, ratio of the least": round(min(seconds[name]) / min(seconds["diffusers"]), 3)
            for name in ratios
        }
        | {f"{name}, error": float(f"{error:.1e}") for name, error in errors.items()},
    )
    slow = [
        f"{name}: {ratios[name]:.3f} > {BOUNDS[name]}"
        for name in ratios
        if ratios[name] > BOUNDS.get(name, 9)
    ]
    wrong = [f"{name}: error {error:.1e}" for name, error in errors.items() if not error <= TOLERANCE]
    print(*slow, *wrong, sep="\n")
    return int(arguments.check and bool(slow or wrong))


if __name__ == "__main__":
    sys.exit(main())
