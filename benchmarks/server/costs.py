"""What single pieces of the server cost: a PNG, a preview, a control map, and the API's start."""

import io
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from starlette.testclient import TestClient

from app.client import data_uri
from app.config import Settings
from app.main import create_app
from benchmarks.server.sleeper import photo
from models.config import ModelSettings
from models.inference.denoise.preview import preview
from models.inference.engine import Engine
from models.job import Job, Step
from worker.encoding.encode import encode, encode_preview

RUNS = 5
PREVIEWS = 50
IMPORT = """
import psutil, time
begun = time.perf_counter()
import app.main
print(time.perf_counter() - begun, psutil.Process().memory_full_info().uss)
"""


def measure_costs() -> dict[str, Any]:
    image = photo()
    took = []
    for _ in range(RUNS):
        begun = time.thread_time()
        ours = encode(image, "png")
        took.append(time.thread_time() - begun)
    usual = io.BytesIO()
    Image.fromarray(image).save(usual, "PNG")
    with tempfile.TemporaryDirectory() as compiled:
        seconds, memory = min(_import(compiled) for _ in range(RUNS))
    with tempfile.TemporaryDirectory() as data_dir:
        canny = _canny_ms(Path(data_dir))
    return {
        "png_ms": round(1000 * median(took), 1),
        "png_size_to_pillow": round(len(ours.data) / usual.tell(), 3),
        "api_import_s": round(seconds, 2),
        "api_import_mb": round(memory / 1e6, 1),
        "canny_ms": round(canny, 1),
        **_previews(),
    }


def _canny_ms(data_dir: Path) -> float:
    """Of `POST /v1/preprocess` with a photo of 1024x1024 in the body, to the answer."""
    settings = Settings(_env_file=None, data_dir=data_dir)
    calls = TestClient(create_app(settings), "http://localhost", client=("127.0.0.1", 50000))
    body = {"image_url": data_uri(encode(photo(), "jpeg").data)}
    took = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        calls.post("/v1/preprocess", json=body).raise_for_status()
        took.append(time.perf_counter() - begun)
    return 1000 * median(took)


def _previews() -> dict[str, float]:
    """A preview, from latents to JPEG, and the step of the demo model after which it is made."""
    ends: list[tuple[float, float]] = []
    """Of each step, and of its preview."""

    def on_step(step: Step) -> None:
        assert step.preview is not None
        ended = time.perf_counter()
        encode_preview(step.preview())
        ends.append((ended, time.perf_counter()))

    engine = Engine.load(ModelSettings(model="demo", device="cpu", _env_file=None))
    job = Job(prompt="a red ball", width=512, height=512, seed=1)
    for _ in ("warm-up", "counts"):
        ends.clear()
        engine.generate(job, None, on_step)
    step = median(after[0] - before[1] for before, after in pairwise(ends))
    small = median(made - ended for ended, made in ends)
    latents, large = torch.randn(1, 16, 128, 128), []
    for _ in range(PREVIEWS):
        begun = time.perf_counter()
        encode_preview(preview(latents))
        large.append(time.perf_counter() - begun)
    return {
        "demo_step_512_ms": round(1000 * step, 1),
        "preview_512_ms": round(1000 * small, 2),
        "preview_1024_ms": round(1000 * median(large), 2),
        "preview_of_a_step": round(small / step, 4),
    }


def _import(compiled: str) -> tuple[float, float]:
    """Seconds, and bytes of memory; modules are compiled the first time, as an installer does."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", IMPORT]
    printed = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    return float(printed[0]), float(printed[1])
