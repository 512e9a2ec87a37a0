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
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.rows import write_row
from models.config import ModelSettings
from models.job import Job, LoraFile, Pixels

SIDES = ("diffusers", "ours")
STEPS = 8
PROMPT = "a red ball and a blue cube on a green table, in front of a white wall"
CONTROL_SCALE = 0.75
LORAS = ("one", "other")


def prepare(folder: Path) -> None:
    """The demo model and two LoRAs for it."""
    from models.demo import WIDTH, write_demo

    write_demo(ModelSettings(data_dir=folder).demo_path)
    random = np.random.default_rng(5)
    for name in LORAS:
        tensors = {
            f"transformer.layers.{layer}.attention.{projection}.lora_{part}.weight": random.normal(
                size=(4, WIDTH) if part == "A" else (WIDTH, 4), scale=0.1
            ).astype(np.float32)
            for layer in range(4)
            for projection in ("to_q", "to_k", "to_v")
            for part in "AB"
        }
        save_file(tensors, folder / f"{name}.safetensors")


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


def run_ours(folder: Path) -> dict[str, float]:
    from models import rig  # noqa: F401  # Its libraries are imported before the clock runs.
    from models.engine import Engine

    figures: dict[str, float] = {}
    settings = ModelSettings(data_dir=folder, model="demo", device="cpu", dtype="float32", _env_file=None)
    engine = measure(figures, "load", lambda: Engine.load(settings))
    controlnet = settings.demo_path / "controlnet.safetensors"

    def draw(size: int, *, controlled: bool = False, lora: str | None = None) -> None:
        loras = (
            [LoraFile(name=lora, path=folder / f"{lora}.safetensors", scale=1.0, sha256="0" * 64)]
            if lora
            else []
        )
        control = {"controlnet": controlnet, "control_scale": CONTROL_SCALE} if controlled else {}
        job = Job(
            prompt=PROMPT, width=size, height=size, num_inference_steps=STEPS, seed=1, loras=loras, **control
        )
        engine.generate(job, picture(size) if controlled else None, lambda step: None)

    measure(figures, "512x512", lambda: draw(512))
    draw(512, lora=LORAS[0])
    measure(figures, "512x512 with another LoRA", lambda: draw(512, lora=LORAS[1]))
    measure(figures, "1024x1024 controlled", lambda: draw(1024, controlled=True))
    return figures


def run_diffusers(folder: Path) -> dict[str, float]:
    import torch
    from diffusers import ZImageControlNetModel, ZImageControlNetPipeline, ZImagePipeline
    from PIL import Image
    from safetensors.torch import load_file

    figures: dict[str, float] = {}
    model = ModelSettings(data_dir=folder).demo_path

    def load() -> tuple[Any, Any]:
        plain: Any = ZImagePipeline.from_pretrained(model)
        # What `from_single_file` would ask the hub for.
        controlnet: Any = ZImageControlNetModel(
            control_layers_places=[0, 2], control_in_dim=16, dim=64, n_heads=1, n_kv_heads=1
        )
        controlnet.load_state_dict(load_file(model / "controlnet.safetensors"))
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
        plain.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
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


def run_apart(side: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.pipelines", side, folder]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    figures: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def main(runs: int) -> None:
    load = os.getloadavg()[0]
    each: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for _ in range(runs):
            for side in SIDES:
                each[side].append(run_apart(side, folder))
    medians = {
        f"{side}: {name}": round(statistics.median(figures[name] for figures in each[side]), 2)
        for side in SIDES
        for name in each[side][0]
    }
    write_row("pipelines.jsonl", {"runs": runs, "load average at the start": round(load, 1)} | medians)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours" | "diffusers" as side, folder]:
            warnings.simplefilter("ignore")
            print(json.dumps({"ours": run_ours, "diffusers": run_diffusers}[side](Path(folder))))
        case [] | [_]:
            main(int(sys.argv[1]) if sys.argv[1:] else 3)
        case _:
            sys.exit("usage: python -m benchmarks.pipelines [RUNS]")
