"""The whole way once, as a client goes it: start a server, post an example, save the picture.

`make demo` runs this. The model is the demo model, so prompt and image are of the small world that it knows:
the picture follows the outlines of the playground's example, and has the colours that the prompt names.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.client import Client, ClientError, picture_names, picture_urls
from app.terminal import printable
from examples.terminal_picture import device_attributes, drawn, graphics

MODEL_ID = "tongyi-mai/z-image/turbo/controlnet/lora"
IMAGE = Path("app/playground/example.jpg")
OUTPUT = Path("demo-output")
START_SECONDS = 300.0
REQUEST_SECONDS = 300.0
STOP_SECONDS = 60.0

console = Console(soft_wrap=True)


def main() -> int:
    # So that a SIGTERM, too, stops the server on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    OUTPUT.mkdir(exist_ok=True)
    log = OUTPUT / "server.log"
    try:
        with (
            tempfile.TemporaryDirectory(prefix="zturbo-demo-") as data_dir,
            serving(Path(data_dir), log) as url,
        ):
            console.print(f"The server is ready at {url}; its log is {log}.")
            saved = picture(url)
    except (ClientError, RuntimeError) as error:
        console.print(printable(error), style="red", markup=False)
        return 1
    show_in_terminal(saved)
    console.print(f"The picture is [bold]{saved}[/bold], guided by {IMAGE}.")
    console.print("Next: [bold]make run[/bold], then open the playground at http://127.0.0.1:8000")
    return 0


def show_in_terminal(saved: Path) -> None:
    """Prints the picture where a terminal with colours reads it."""
    if console.is_terminal and not console.no_color:
        with Image.open(saved) as picture:
            by = graphics(os.environ, device_attributes())
            sys.stdout.write(drawn(picture, by, console.width))


def example_body() -> dict[str, object]:
    return {
        "prompt": "A blue ball and a yellow cone on sand under a sunset sky",
        "image_url": f"data:image/jpeg;base64,{base64.b64encode(IMAGE.read_bytes()).decode()}",
        "loras": [{"path": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union", "scale": 1}],
        "preprocess": "canny",
        "control_end": 0.8,
    }


def picture(url: str) -> Path:
    """Posts the example, draws a bar while it runs, and saves what comes."""
    body = example_body()
    shown = json.dumps(body | {"image_url": "data:image/jpeg;base64,…"}, indent=2, ensure_ascii=False)
    console.print(f"POST {url}/v1/models/{MODEL_ID}\n{shown}")
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with Client(url) as client, bars:
        bar = bars.add_task("submitted", total=1.0, steps="")

        def show(status: dict[str, Any]) -> None:
            steps = f"step {status['step']}/{status['total_steps']}" if status.get("total_steps") else ""
            words = str(status["status"]).replace("_", " ")
            bars.update(bar, description=words, completed=status.get("progress") or 0, steps=steps)

        request_id = client.submit(MODEL_ID, body)["request_id"]
        result = client.wait(request_id, show, REQUEST_SECONDS, interval=0.1)
        if result["status"] != "succeeded":
            raise RuntimeError(
                f"The request {result['status']}: {result.get('error', {}).get('message', '')}"
            )
        bars.update(bar, completed=1.0)
        [url] = picture_urls(result)
        [name] = picture_names("picture", [url])
        return client.download(url, OUTPUT / name)


@contextmanager
def serving(data_dir: Path, log: Path) -> Iterator[str]:
    """Base URL of a server of our own on a free port; it is stopped at the end, whatever happens."""
    command = [str(Path(sys.executable).with_name("zturbo")), "serve", "--model", "demo", "--port", "0"]
    with log.open("w+") as lines:
        server = subprocess.Popen([*command, "--data-dir", str(data_dir)], stdout=lines, stderr=lines)
        try:
            with console.status("Starting the server …"):
                url = wait_until_ready(server, log)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    if server.returncode != 0:
        raise RuntimeError(f"The server did not stop cleanly: status {server.returncode}, see {log}.")


def wait_until_ready(server: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        lines = log.read_text().splitlines()
        for line in lines:
            if line.startswith("ready: "):
                return line.removeprefix("ready: ")
        if server.poll() is not None:
            raise RuntimeError("\n".join(["The server ended before it was ready:", *lines[-20:]]))
        time.sleep(0.1)
    raise RuntimeError(f"The server was not ready within {START_SECONDS:.0f} s; see {log}.")


if __name__ == "__main__":
    sys.exit(main())
