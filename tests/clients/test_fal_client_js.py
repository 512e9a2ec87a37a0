"""fal's own JavaScript client, as it is on npm, sent here by its two ways of being sent elsewhere."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent
SECONDS = 60

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (HERE / "node_modules" / "@fal-ai" / "client").is_dir(),
        reason="@fal-ai/client is not installed: npm install --prefix tests/clients",
    ),
]


def run(base: str, mode: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", str(HERE / "fal_client.mjs"), base, mode], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    "mode", ["proxy", "proxy-streaming", "middleware", pytest.param("middleware-streaming")]
)
def test_subscribe_gives_the_picture(base: str, mode: str) -> None:
    told = run(base, mode)
    assert told["data"]["images"][0]["url"] == f"{base}/v1/files/{'0' * 32}/image.png"
    assert told["data"]["seed"] == 7
    assert set(told["seen"]) <= {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}


def test_cancel_through_the_proxy(base: str) -> None:
    assert run(base, "proxy-cancel") == {"seen": ["COMPLETED"], "error": "cancelled"}


@pytest.mark.parametrize(
    "target", ["", "https://example.com/fal-ai/z-image/x", "https://queue.fal.run/v1/models"]
)
def test_proxy_goes_nowhere_else(base: str, target: str) -> None:
    answer = httpx.post(f"{base}/fal/proxy", headers={"x-fal-target-url": target})
    assert answer.status_code == 404
