"""What single pieces of the server cost: a PNG, and the API's start."""

import io
import os
import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import Any

from PIL import Image

from benchmarks.server.sleeper import photo
from worker.encode import encode

RUNS = 5
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
    return {
        "png_ms": round(1000 * median(took), 1),
        "png_size_to_pillow": round(len(ours.data) / usual.tell(), 3),
        "api_import_s": round(seconds, 2),
        "api_import_mb": round(memory / 1e6, 1),
    }


def _import(compiled: str) -> tuple[float, float]:
    """Seconds, and bytes of memory; modules are compiled the first time, as an installer does."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", IMPORT]
    printed = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    return float(printed[0]), float(printed[1])
