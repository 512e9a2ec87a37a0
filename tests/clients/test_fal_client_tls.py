"""fal's own Python client through HTTPS, told by variables alone: not a constant in it is touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import Settings
from app.main import create_app
from tests.certificates import make_certificate
from tests.http_api import served

pytest.importorskip("fal_client", reason="fal-client is not installed")

SECONDS = 60
SCRIPT = """
import fal_client

model = "fal-ai/z-image/turbo/controlnet/lora"
arguments = {"prompt": "a fox", "image_url": "https://example.com/photo.jpg"}
print(fal_client.subscribe(model, arguments)["images"][0]["url"])
print(fal_client.run(model, arguments)["images"][0]["url"])
"""


@pytest.mark.usefixtures("work")
def test_client_that_insists_on_https_is_served(settings: Settings, tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    settings = settings.model_copy(
        update={"tls_cert": made.cert, "tls_key": made.key, "api_keys": "ann:key-a"}
    )
    with served(create_app(settings), settings) as base:
        host = base.removeprefix("https://")
        env = {
            "FAL_KEY": "key-a",
            "FAL_QUEUE_RUN_HOST": host,
            "FAL_RUN_HOST": f"{host}/fal/run",
            "SSL_CERT_FILE": str(made.authority),
        }
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ran.stdout.split() == [f"{base}/v1/files/{'0' * 32}/image.png"] * 2, ran.stderr
