"""Serves the published size on this machine and makes the documented picture, under a limit of memory.

    python -m benchmarks.full_size FOLDER --memory-limit 16G

writes random weights of the published layout into FOLDER (24 GB, a minute; what is there stays), starts
`zturbo serve` on them, sends the documented request with canny, ControlNet-Union and, with --lora, a LoRA,
and prints seconds and peak memory of each stage.
"""

import argparse
import base64
import io
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from app.client import Client
from benchmarks.full_size.limits import Watch, memory_group
from benchmarks.full_size.weights import STYLE, UNION, write_all
from benchmarks.run import option_parser, write_row
from models.schema.model_ids import CONTROLNET_LORA

GB = 10**9
EXAMPLE = Path(__file__).parents[2] / "app" / "playground" / "example.jpg"
PROMPT = "A lighthouse on a cliff at dusk, waves below, warm light in its lantern"


def main() -> int:
    options = _options()
    folder = Path(options.folder).expanduser().resolve()
    _write(folder, options.union)
    if options.write_only:
        return 0
    figures = _measure(folder, options)
    del options.folder, options.write_only
    write_row("full_size.jsonl", figures, options)
    return 0


def _options() -> argparse.Namespace:
    parser = option_parser("full_size", __doc__)
    parser.add_argument("folder", help="where the weights are, or are written: outside the repository")
    parser.add_argument("--write-only", action="store_true", help="write the weights and stop")
    parser.add_argument("--union", default="1.0", choices=("1.0", "2.0", "2.1", "2.1-lite"))
    parser.add_argument("--side", type=int, default=512, help="pixels of a side of the picture")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", default="auto", help="ZTURBO_DTYPE of the server")
    parser.add_argument("--lora", action="store_true", help="with a LoRA of rank 32")
    parser.add_argument(
        "--memory-limit", type=_bytes, default=16 * 2**30, metavar="16G", help="of all processes"
    )
    return parser.parse_args()


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)G", text)
    if found is None:
        raise argparse.ArgumentTypeError("a number of GiB: 16G")
    return int(found[1]) * 2**30


def _write(folder: Path, union: str) -> None:
    columns = (TextColumn("writing random weights"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("weights", total=None)
        write_all(folder, union, lambda done, total: progress.update(task, completed=done, total=total))


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    begun = time.time()
    environment = os.environ | {
        "ZTURBO_DTYPE": options.dtype,
        "ZTURBO_CONTROLNET": str(folder / "loras" / UNION),
        "ZTURBO_LORA_DIR": str(folder / "loras"),
        "ZTURBO_DATA_DIR": str(folder / "data"),
    }
    command = [sys.executable, "-m", "app", "serve", "--model", str(folder / "model"), "--port", "0"]
    with ExitStack() as opened:
        group = opened.enter_context(memory_group(options.memory_limit))
        print("memory is held to the limit by", "a control group" if group else "looking at it")
        server = opened.enter_context(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
        if group:
            group.write_text(str(server.pid))
        opened.callback(server.terminate)
        watch = opened.enter_context(Watch(server.pid, options.memory_limit))
        client = opened.enter_context(Client(_ready(server)))
        ready = time.time()
        return {
            "limit_by": "cgroup" if group else "watch",
            "start_s": round(ready - begun, 1),
            **_peak(watch, "start", begun, ready),
            **_picture(client, watch, options),
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


def _picture(client: Client, watch: Watch, options: argparse.Namespace) -> dict[str, Any]:
    # `auto` is the picture's own size.
    picture = io.BytesIO()
    Image.open(EXAMPLE).resize((options.side, options.side)).save(picture, "jpeg")
    encoded = base64.b64encode(picture.getvalue()).decode()
    loras = [{"path": UNION, "scale": 1}] + ([{"path": STYLE, "scale": 0.8}] if options.lora else [])
    body = {
        "prompt": PROMPT,
        "image_url": f"data:image/jpeg;base64,{encoded}",
        "image_size": "auto",
        "num_inference_steps": options.steps,
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


if __name__ == "__main__":
    sys.exit(main())
