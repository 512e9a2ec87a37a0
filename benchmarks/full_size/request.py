"""The documented request at the published size, made by a server of its own under a limit of memory."""

import base64
import io
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from app.client import Client
from benchmarks.full_size.limits import Watch, memory_group
from benchmarks.full_size.weights import STYLE, UNION
from models.schema.model_ids import CONTROLNET_LORA

GB = 10**9
EXAMPLE = Path(__file__).parents[2] / "app" / "playground" / "example.jpg"
PROMPT = "A lighthouse on a cliff at dusk, waves below, warm light in its lantern"


@dataclass
class Request:
    """What the server is started with and what it is asked for."""

    dtype: str = "auto"
    """Its ZTURBO_DTYPE, or its ZTURBO_QUANTIZATION: int8."""
    memory_limit: int = 16 * 2**30
    """Bytes of all its processes, with the pages of files that they read."""
    lora: bool = False
    side: int = 512
    """Pixels of a side of the picture."""
    steps: int = 8


def measure(folder: Path, request: Request) -> dict[str, Any]:
    """Seconds and peaks in GB, of the start and of each stage. Raises RuntimeError for want of a picture."""
    begun = time.time()
    is_quantized = request.dtype == "int8"
    environment = os.environ | {
        "ZTURBO_DTYPE": "auto" if is_quantized else request.dtype,
        "ZTURBO_QUANTIZATION": "int8" if is_quantized else "auto",
        "ZTURBO_CONTROLNET": str(folder / "loras" / UNION),
        "ZTURBO_LORA_DIR": str(folder / "loras"),
        "ZTURBO_DATA_DIR": str(folder / "data"),
    }
    command = [sys.executable, "-m", "app", "serve", "--model", str(folder / "model"), "--port", "0"]
    with ExitStack() as opened:
        group = opened.enter_context(memory_group(request.memory_limit))
        print("memory is held to the limit by", "a control group" if group else "looking at it")
        server = opened.enter_context(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
        if group:
            group.write_text(str(server.pid))
        opened.callback(server.terminate)
        watch = opened.enter_context(Watch(server.pid, request.memory_limit))
        client = opened.enter_context(Client(_ready(server)))
        ready = time.time()
        return {
            "limit_by": "cgroup" if group else "watch",
            "start_s": round(ready - begun, 1),
            **_peak(watch, "start", begun, ready),
            **_picture(client, watch, request),
        }


def _ready(server: "subprocess.Popen[str]") -> str:
    """The URL that `serve` prints once a picture can be made. Raises RuntimeError with what it said last."""
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"^ready: (\S+)", line):
            return found[1]
        said = line
    raise RuntimeError(f"the server ended: {said}")


def _picture(client: Client, watch: Watch, request: Request) -> dict[str, Any]:
    # `auto` is the picture's own size.
    picture = io.BytesIO()
    Image.open(EXAMPLE).resize((request.side, request.side)).save(picture, "jpeg")
    encoded = base64.b64encode(picture.getvalue()).decode()
    loras = [{"path": UNION, "scale": 1}] + ([{"path": STYLE, "scale": 0.8}] if request.lora else [])
    body = {
        "prompt": PROMPT,
        "image_url": f"data:image/jpeg;base64,{encoded}",
        "image_size": "auto",
        "num_inference_steps": request.steps,
        "seed": 1,
        "loras": loras,
    }
    steps: list[float] = []
    begun = time.time()

    def look(status: dict[str, Any]) -> None:
        if status.get("step", 0) > len(steps):
            steps.append(time.time())
            print(
                f"step {status['step']} of {status['total_steps']} after {steps[-1] - begun:.1f} s",
                flush=True,
            )

    result = client.wait(client.submit(CONTROLNET_LORA, body)["request_id"], look, interval=0.2)
    ended = time.time()
    if result["status"] != "succeeded":
        raise RuntimeError(f"no picture: {result}")
    between = [late - early for early, late in pairwise(steps)]
    return {
        "picture_s": round(ended - begun, 1),
        "step_s": [round(seconds, 2) for seconds in between],
        "timings": result.get("timings"),
        **_peak(watch, "picture", begun, ended),
        **{f"{stage}_peak": peak for stage, peak in _stages(watch, begun, steps, ended).items()},
    }


def _stages(watch: Watch, begun: float, steps: list[float], ended: float) -> dict[str, dict[str, float]]:
    """The prompt and the control map come before the first step, decoding and encoding after the last."""
    if not steps:
        return {}
    spans = {"before": (begun, steps[0]), "denoise": (steps[0], steps[-1]), "decode": (steps[-1], ended)}
    return {name: _gigabytes(watch, *span) for name, span in spans.items()}


def _peak(watch: Watch, name: str, begun: float, ended: float) -> dict[str, dict[str, float]]:
    return {f"{name}_peak": _gigabytes(watch, begun, ended)}


def _gigabytes(watch: Watch, begun: float, ended: float) -> dict[str, float]:
    private, mapped = watch.peak(begun, ended)
    return {"private_gb": round(private / GB, 2), "mapped_gb": round(mapped / GB, 2)}
