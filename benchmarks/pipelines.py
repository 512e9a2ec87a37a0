"""Seconds and peak memory of the demo model by diffusers' own pipelines, and by our engine on its weights.

Each side runs in processes of its own, in turns, and the medians make one row in results/pipelines.jsonl.
Peaks are the process's own, up to and with that piece of work, the imported libraries included.

    python -m benchmarks.pipelines [RUNS]
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.rows import write_row
from models import demo
from models.config import ModelSettings
from models.job import Job, LoraFile, Pixels

SIDES = ("diffusers", "ours")
STEPS = 8
PROMPT = "a red ball and a blue cube on a green table, in front of a white wall"
CONTROL_SCALE = 0.75
LORAS = ("blueprint", "night")


def picture(size: int) -> Pixels:
    """A white square on black, to be followed."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[size // 4 : -size // 4, size // 4 : -size // 4] = 255
    return pixels


def measure(figures: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Runs `work`; its seconds, and the process's peak memory in MiB, go into `figures`."""
    begun = time.perf_counter()
    result = work()
    figures[f"{name}, seconds"] = time.perf_counter() - begun
    # Linux counts in KiB.
    figures[f"{name}, peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def run_ours() -> dict[str, float]:
    from models import rig  # noqa: F401  # Its libraries are imported before the clock runs.
    from models.engine import Engine

    figures: dict[str, float] = {}
    settings = ModelSettings(model="demo", device="cpu", dtype="float32", _env_file=None)
    engine = measure(figures, "load", lambda: Engine.load(settings))

    def draw(size: int, *, controlled: bool = False, lora: str | None = None) -> None:
        loras = (
            [LoraFile(name=lora, path=demo.LORAS / f"{lora}.safetensors", scale=1.0, sha256="0" * 64)]
            if lora
            else []
        )
        control = {"controlnet": demo.CONTROLNET, "control_scale": CONTROL_SCALE} if controlled else {}
        job = Job(
            prompt=PROMPT, width=size, height=size, num_inference_steps=STEPS, seed=1, loras=loras, **control
        )
        engine.generate(job, picture(size) if controlled else None, lambda step: None)

    measure(figures, "512x512", lambda: draw(512))
    draw(512, lora=LORAS[0])
    measure(figures, "512x512 with another LoRA", lambda: draw(512, lora=LORAS[1]))
    measure(figures, "1024x1024 controlled", lambda: draw(1024, controlled=True))
    return figures


def run_diffusers() -> dict[str, float]:
    import torch
    from diffusers import ZImageControlNetPipeline, ZImagePipeline
    from PIL import Image

    figures: dict[str, float] = {}
    from models.controlnet import load_controlnet

    def load() -> tuple[Any, Any]:
        plain: Any = ZImagePipeline.from_pretrained(demo.FOLDER, torch_dtype=torch.float32)
        # `from_single_file` would ask the hub for the configuration.
        controlnet, _ = load_controlnet(demo.CONTROLNET, plain.transformer.config, torch.float32, "cpu")
        return plain, ZImageControlNetPipeline(**plain.components, controlnet=controlnet)

    plain, controlled = measure(figures, "load", load)

    def draw(pipeline: Any, size: int, **options: Any) -> None:
        generator = torch.Generator().manual_seed(1)
        pipeline(
            PROMPT, width=size, height=size, num_inference_steps=STEPS, guidance_scale=0.0,
            generator=generator, **options,
        )  # fmt: skip

    def change_lora(name: str) -> None:
        plain.unload_lora_weights()
        plain.load_lora_weights(demo.LORAS, weight_name=f"{name}.safetensors", adapter_name=name)
        draw(plain, 512)

    for pipeline in (plain, controlled):
        pipeline.set_progress_bar_config(disable=True)
    measure(figures, "512x512", lambda: draw(plain, 512))
    change_lora(LORAS[0])
    measure(figures, "512x512 with another LoRA", lambda: change_lora(LORAS[1]))
    plain.unload_lora_weights()
    control = {
        "control_image": Image.fromarray(picture(1024)),
        "controlnet_conditioning_scale": CONTROL_SCALE,
    }
    measure(figures, "1024x1024 controlled", lambda: draw(controlled, 1024, **control))
    return figures


def run_apart(side: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.pipelines", side]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    figures: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def main(runs: int) -> None:
    load = os.getloadavg()[0]
    each: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(runs):
        for side in SIDES:
            each[side].append(run_apart(side))
    medians = {
        f"{side}: {name}": round(statistics.median(figures[name] for figures in each[side]), 2)
        for side in SIDES
        for name in each[side][0]
    }
    write_row("pipelines.jsonl", {"runs": runs, "load average at the start": round(load, 1)} | medians)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours" | "diffusers" as side]:
            warnings.simplefilter("ignore")
            print(json.dumps({"ours": run_ours, "diffusers": run_diffusers}[side]()))
        case [] | [_]:
            main(int(sys.argv[1]) if sys.argv[1:] else 3)
        case _:
            sys.exit("usage: python -m benchmarks.pipelines [RUNS]")
