"""The published example, as it stands, against a whole server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from models.weights import demo
from models.weights.header import read_header
from tests.e2e.conftest import CONTROLNET, MODEL_ID, data_uri, photograph, run
from tests.support.hub import HubStub
from tests.support.serve_process import ServeProcess

ROOT = Path(__file__).parents[2]
LORA = "someone/style"


def example() -> dict[str, object]:
    return {
        "prompt": "An astronaut in an orange suit, smiling",
        "image_url": data_uri(photograph("astronaut")),
        "loras": [{"path": CONTROLNET, "scale": 1}],
    }


def test_documented_example_runs_as_it_stands(url: str) -> None:
    made = run(url, example())
    assert made.content_type == "image/png"
    assert made.image.size == demo.native_size(1024, 1024), "the demo model's own size"
    assert made.result["controlnet"] == CONTROLNET
    assert made.statuses[-1] == made.statuses[-1] | {"status": "completed", "progress": 1.0, "step": 8}


def test_code_of_the_readme_runs_as_it_stands(url: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert 'base = "http://127.0.0.1:8000"' in code
    command = [sys.executable, "-c", code.replace("http://127.0.0.1:8000", url)]
    printed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert httpx.get(printed.strip()).headers["content-type"] == "image/png"


def test_request_is_followed_from_the_queue_to_the_end(url: str) -> None:
    made = run(url, example() | {"seed": 77})
    seen = [status["status"] for status in made.statuses]
    assert seen[-1] == "completed"
    assert seen == sorted(seen, key=["in_queue", "in_progress", "completed"].index)


def test_failed_request_says_why_and_the_next_one_runs(url: str) -> None:
    body = example() | {"image_url": "https://nowhere.invalid/nobody.png"}
    submitted = httpx.post(f"{url}/v1/models/{MODEL_ID}", json=body).json()
    for _ in range(600):
        result = httpx.get(submitted["result_url"]).json()
        if result["status"] == "failed":
            break
    assert result["error"]["type"] == "fetch_failed"
    assert "image_url" in result["error"]["message"]
    run(url, example())


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model in the diffusers layout that is not called demo: a copy of the demo's own files."""
    return Path(shutil.copytree(demo.FOLDER, tmp_path / "model"))


def test_controlnet_and_lora_come_from_the_hub_by_their_ids(model_folder: Path, tmp_path: Path) -> None:
    controlnet = model_folder / "controlnet.safetensors"
    assert read_header(controlnet).tensors
    with HubStub() as hub:
        hub.add_repo(CONTROLNET, {"Z-Image-Turbo-Fun-Controlnet-Union.safetensors": controlnet.read_bytes()})
        hub.add_repo(LORA, {"style.safetensors": (demo.LORAS / "blueprint.safetensors").read_bytes()})
        controlnet.unlink()
        server = ServeProcess(
            tmp_path / "data",
            *("--io-workers", "1"),
            model=str(model_folder),
            env={"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"},
        )
        try:
            made = run(
                server.wait_until_ready(),
                example() | {"loras": [{"path": CONTROLNET, "scale": 1}, {"path": LORA, "scale": 0.5}]},
            )
            assert made.result["controlnet"].startswith(CONTROLNET)
            assert made.result["loras"][0]["name"].startswith(LORA)
            fetched = {request.path for request in hub.requests if request.method == "GET"}
            assert any(CONTROLNET in path for path in fetched)
            assert any(LORA in path for path in fetched)
        finally:
            assert server.stop() == 0, server.output
