"""One `zturbo serve --model demo` for all these tests, and requests to it over HTTP."""

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skimage
from numpy.typing import NDArray
from PIL import Image

from app.client import Client
from models.weights import demo
from tests.support.serve_process import ServeProcess

MODEL_ID = "tongyi-mai/z-image/turbo/controlnet/lora"
CONTROLNET = "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union"
REQUEST_SECONDS = 120.0


@dataclass(frozen=True)
class Made:
    """A request that succeeded, and its first picture."""

    result: dict[str, Any]
    statuses: list[dict[str, Any]]
    files: list[bytes]
    content_type: str

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.files[0]))

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return np.asarray(self.image.convert("RGB"))


Make = Callable[..., Made]


def data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photograph(name: str) -> Image.Image:
    return Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png").convert("RGB")


def run(url: str, body: dict[str, Any]) -> Made:
    """Submit, wait and fetch as a client does; fails the test unless the request succeeds."""
    statuses: list[dict[str, Any]] = []
    with Client(url, "any") as client:
        request_id = client.submit(MODEL_ID, body)["request_id"]
        result = client.wait(request_id, statuses.append, REQUEST_SECONDS, interval=0.05)
    assert result["status"] == "succeeded", result
    # With no token, as the hosted endpoint's clients fetch it.
    urls = result["output"].get("images") or [result["output"]["image"]]
    fetched = [httpx.get(url) for url in urls]
    assert {answer.status_code for answer in fetched} == {200}
    return Made(result, statuses, [answer.content for answer in fetched], fetched[0].headers["content-type"])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    data_dir = tmp_path_factory.mktemp("serve") / "data"
    (data_dir / "loras").mkdir(parents=True)
    shutil.copy(demo.LORAS / "blueprint.safetensors", data_dir / "loras" / "style.safetensors")
    # Nothing here may need the hub: the port is that of nobody.
    server = ServeProcess(
        data_dir, env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(data_dir / "hub")}
    )
    try:
        server.wait_until_ready()
        yield server
    finally:
        status = server.stop()
    assert status == 0, server.output


@pytest.fixture(scope="session")
def url(server: ServeProcess) -> str:
    return server.wait_until_ready()


@pytest.fixture(scope="session")
def make(url: str) -> Make:
    """Runs the base request with some fields changed; the same request is run once."""
    base = {
        "prompt": "a red ball on a green table",
        "image_url": data_uri(photograph("astronaut")),
        "loras": [],
        "image_size": "square",
        "num_inference_steps": 4,
    }
    done: dict[str, Made] = {}

    def make(**fields: Any) -> Made:
        body = base | fields
        key = json.dumps(body, sort_keys=True)
        if key not in done:
            done[key] = run(url, body)
        return done[key]

    return make
