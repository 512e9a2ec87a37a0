"""Time and memory of the published model on a GPU, with random weights at its real configuration.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --path compiled
    python -m benchmarks.gpu --parts tier [--quantization int8 | fp8]
    python -m benchmarks.gpu --parts ours --sizes 1024 --captions 32 200 500
    python -m benchmarks.gpu --tiny --device cpu --runs 1     # a dry run

Needs torch, transformers, diffusers and this repository, 64 GB of host memory and 30 GB of disk; no network
and no weights. Parts, in their order: profile (a compiler's seconds, a first picture, kernels), rates (of
products, attention, copies; clocks), check (one step against float32), ours (each size and setting), batch,
loras, diffusers, tier (smaller cards, by a cap on this one's memory). Each figure is a row in gpu.jsonl of
benchmarks/results and, where it is set, of the folder OUT. `benchmarks/gpu/calls.sh` does it all in calls of
under ten minutes. Not yet run on a GPU.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu import peers
from benchmarks.gpu.arithmetic import step_flops
from benchmarks.gpu.check import step_error
from benchmarks.gpu.measure import (
    DRIVER_SHARE,
    cap_memory,
    measure_pictures,
    peak_memory,
    peak_rate,
    spread,
    synchronize,
    timed,
)
from benchmarks.gpu.models import (
    FULL,
    TINY,
    Scale,
    build_components,
    build_engine,
    caption_tokens,
    footprint,
    prompt_of,
    rounded,
    write_controlnets,
    write_loras,
)
from benchmarks.gpu.probe import kernels, rates
from benchmarks.run import option_parser, write_row
from models.inference.control.controlnet import Layout
from models.inference.denoise.compilation import warm_up
from models.inference.denoise.paths import EAGER, PATHS, named
from models.inference.device import step_graphs
from models.inference.device.loaded_model import LoadedModel
from models.inference.device.placement import Placement, decide
from models.inference.lora.stack import LoraStack
from models.job import Job

PARTS = ("profile", "rates", "check", "ours", "batch", "loras", "diffusers", "tier")
WINDOWS = {"3 steps": 0.4, "8 steps": 1.0}
TIERS_GB = (24, 16, 12, 8)
ERRORS = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Largest relative error of one step against float32."""

Row = dict[str, Any]


class Bench:
    """Everything that the parts share: one model on one device."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.scale: Scale = TINY if options.tiny else FULL
        if options.sizes:
            self.scale = replace(self.scale, sizes=tuple(options.sizes))
        self.options = options
        self.device: str = options.device
        self.folder = folder
        self.dtype = torch.bfloat16 if self.device.startswith("cuda") else torch.float32
        self.components = build_components(self.scale, self.dtype, self.device)
        self.controlnets = write_controlnets(self.scale, self.components, folder)
        self.loras = write_loras(self.components, folder)
        name = str(self.dtype).removeprefix("torch.")
        eight_bits = None if options.quantization == "off" else options.quantization
        placement = Placement(self.device, name, "resident", eight_bits=eight_bits)  # type: ignore[arg-type]
        if eight_bits:
            self.components = rounded(self.components, eight_bits)
        self.model = LoadedModel(self.components, placement, None)
        self.engine = build_engine(self.model, folder)
        self.peak = peak_rate(self.scale.product, self.device, self.dtype)

    def take(self, name: str) -> float:
        """Run the blocks by this path from now on; the seconds that it took, a compiler's among them."""
        begun = time.perf_counter()
        self.model.use(named(name))
        if self.model.is_compiled:
            for path in self.controlnets.values():
                with self.model.denoiser(path) as (transformer, branch):
                    warm_up(transformer, branch, torch.device(self.device))
        synchronize(self.device)
        return time.perf_counter() - begun

    def job(self, side: int, prompt: str = peers.PROMPT, **options: Any) -> Job:
        return Job(prompt=prompt, width=side, height=side, num_inference_steps=peers.STEPS, **options)

    def settings(self) -> Iterator[tuple[Row, Layout | None, dict[str, Any]]]:
        """What is said of each setting, its branch, and the job's options."""
        yield {"control": "none"}, None, {}
        for layout in self.scale.layouts:
            for words, end in WINDOWS.items():
                path = self.controlnets[layout.variant]
                options = {"controlnet": path, "control_scale": peers.SCALE, "control_end": end}
                yield {"control": f"Union {layout.variant} on {words}"}, layout, options

    def profile(self) -> Iterator[Row]:
        """One by one, then by the path that was asked for, which stays."""
        job = self.job(max(self.scale.sizes))

        def draw() -> Any:
            return self.engine.generate(job, None, lambda step: None)

        for name in dict.fromkeys((EAGER.name, self.options.path)):
            taken = self.take(name)
            begun = time.perf_counter()
            draw()
            first = time.perf_counter() - begun
            figures = spread(timed(draw, self.options.runs, self.device))
            row = {"path": self.model.path.name, "size": job.width, "until taken s": round(taken, 2)}
            yield {**row, "first s": round(first, 3), **figures, **kernels(draw, self.device)}

    def rates(self) -> Iterator[Row]:
        return rates(self.components.transformer.config, self.scale.sizes, self.device, self.dtype)

    def check(self) -> Iterator[Row]:
        errors = step_error(self.model, list(self.controlnets.values()), min(self.scale.sizes))
        yield {"path": self.model.path.name, "dtype": str(self.dtype), **errors}
        worst = max(errors.values())
        if not worst <= ERRORS[self.dtype]:
            raise SystemExit(f"One step differs from float32 by {worst:.1e}: more than {ERRORS[self.dtype]}.")

    def ours(self) -> Iterator[Row]:
        tokenizer = self.components.tokenizer
        prompts = [prompt_of(tokenizer, tokens) for tokens in self.options.captions] or [peers.PROMPT]
        for side, prompt in product(self.scale.sizes, prompts):
            caption = caption_tokens(tokenizer, prompt)
            for said, layout, options in self.settings():
                figures = measure_pictures(self.engine, self.job(side, prompt, **options), self.options.runs)
                config, image = self.components.transformer.config, (side // 16) ** 2
                plain, with_branch = (step_flops(config, image, caption, branch) for branch in (None, layout))
                controlled = figures["controlled"]
                done = (figures["forwards"] - controlled) * plain + controlled * with_branch
                share = done / figures["denoise s"] / self.peak
                yield {"size": side, "caption": caption, **said, **figures, "share of peak": round(share, 3)}

    def batch(self) -> Iterator[Row]:
        for count in (1, 2, 4):
            side = self.scale.sizes[0]
            figures = measure_pictures(self.engine, self.job(side, num_images=count), self.options.runs)
            yield {"size": side, "pictures": count, **figures, "each s": round(figures["p50 s"] / count, 4)}

    def lora(self) -> Iterator[Row]:
        stack = LoraStack(self.model.transformer, self.model.originals)
        sets = [self.loras, self.loras[:1]]

        def change() -> None:
            sets.reverse()
            stack.apply(sets[0])

        changed = timed(change, 2 * self.options.runs, self.device)
        unchanged = timed(lambda: stack.apply(sets[0]), self.options.runs, self.device)
        stack.apply([])
        yield {
            "path": self.model.path.name,
            "loras": len(self.loras),
            "change": spread(changed),
            "unchanged": spread(unchanged),
        }

    def diffusers(self) -> Iterator[Row]:
        torch.compiler.set_stance("default")
        for variant in self.options.variants or peers.variants(self.device):
            for side in self.scale.sizes:
                for control in (None, self.scale.layouts[0].variant):
                    with self.model.denoiser(self.controlnets[control] if control else None) as (_, branch):
                        draw = peers.build(self.components, branch, variant, side)
                    figures: Row = {}
                    with peak_memory(figures, self.device):
                        figures |= spread(timed(draw, self.options.runs, self.device))
                    said = f"Union {control} on all steps" if control else "none"
                    yield {"variant": variant, "size": side, "control": said, **figures}
                    torch.compiler.reset()


def tier(options: argparse.Namespace, folder: Path) -> Row:
    """A picture with Union 1.0 and a LoRA on a card of so many GB, with the server's own placement."""
    scale: Scale = TINY if options.tiny else FULL
    on_gpu = options.device.startswith("cuda")
    if on_gpu:
        cap_memory(options.device, options.tier * 2**30, DRIVER_SHARE)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    components = build_components(scale, dtype, options.device, home="cpu")
    controlnet = write_controlnets(replace(scale, layouts=scale.layouts[:1]), components, folder)["1.0"]
    loras = write_loras(components, folder)
    weight = footprint(components, controlnet)
    if options.quantization != "off":
        components = rounded(components, options.quantization)
    free = int(options.tier * 2**30 * DRIVER_SHARE)
    placement = decide(
        options.device,
        free,
        weight,
        quantization=options.quantization,
        rest="bfloat16" if on_gpu else "float32",
    )
    if placement.mode == "resident":
        components.transformer.to(options.device)
    engine = build_engine(LoadedModel(components, placement, controlnet), folder)
    job = Job(
        prompt=peers.PROMPT, width=max(scale.sizes[:2]), height=max(scale.sizes[:2]), loras=loras[:1],
        controlnet=controlnet, control_scale=peers.SCALE, control_end=0.4,
    )  # fmt: skip
    figures = measure_pictures(engine, job, options.runs)
    held = round((placement.held_bytes or 0) / 1e9, 1)
    return {"card GB": options.tier, "placement": placement.mode, "held GB": held, **figures}


def write(options: argparse.Namespace, part: str, row: Row) -> None:
    on_gpu = options.device.startswith("cuda")
    device = torch.cuda.get_device_name(options.device) if on_gpu else options.device
    write_row(
        "gpu.jsonl",
        {
            "part": part,
            "device": device,
            "weights": options.quantization,
            **row,
        },
    )


def main(argv: list[str] | None = None) -> int:
    parser = option_parser("gpu", __doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small model, to see that all parts run")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--path", default=EAGER.name, choices=[path.name for path in PATHS])
    parser.add_argument(
        "--quantization",
        default="off",
        choices=("off", "int8", "fp8"),
        help="ours, batch, loras and tier alone; fp8 from compute capability 8.9 on",
    )
    parser.add_argument("--sizes", nargs="+", type=int, help="sides of the pictures of ours and diffusers")
    parser.add_argument("--captions", nargs="+", type=int, default=[], help="tokens of the prompts of ours")
    parser.add_argument("--variants", nargs="+", choices=peers.VARIANTS, help="of diffusers; default: all")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--tier", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.quantization != "off" and {"check", "diffusers"} & set(options.parts) and not options.tier:
        parser.error(
            "check and diffusers run on whole weights: leave them out of --parts, or --quantization."
        )
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no GPU is to be seen from here; --tiny --device cpu --runs 1 is the dry run.")
    # Else most of what is timed would not be captured yet.
    soon = patch.object(step_graphs, "USES", 1)
    with tempfile.TemporaryDirectory() as name, torch.no_grad(), soon:
        folder = Path(name)
        if options.tier:
            write(options, "tier", tier(options, folder))
            return 0
        measured = sorted(set(options.parts) - {"tier"}, key=PARTS.index)
        if measured:
            bench = Bench(options, folder)
            if "profile" not in measured:
                bench.take(options.path)
            for part in measured:
                for row in getattr(bench, "lora" if part == "loras" else part)():
                    write(options, part, row)
    if "tier" in options.parts:
        given = sys.argv[1:] if argv is None else argv
        for gigabytes in TIERS_GB:
            # A cap holds for a whole process, and so does what has been allocated before it.
            command = [sys.executable, "-m", "benchmarks.gpu", *given, "--tier", str(gigabytes)]
            subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
