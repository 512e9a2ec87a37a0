"""`zturbo serve` by HTTPS as a whole: a plain caller, and fal's Python client told by variables alone.

The certificate is the one that docs/deploy.md tells to make.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import MODEL_ID, REQUEST_SECONDS, data_uri, photograph
from tests.support.serve_process import ServeProcess

pytest.importorskip("fal_client", reason="fal-client is not installed")

DEPLOY = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
BODY = {
    "prompt": "a fox",
    "image_url": data_uri(photograph("astronaut")),
    "loras": [],
    "num_inference_steps": 1,
}
SCRIPT = """
import json
import sys

import fal_client

model, arguments = "fal-ai/z-image/turbo/controlnet/lora", json.load(sys.stdin)
print(fal_client.subscribe(model, arguments)["images"][0]["url"])
print(fal_client.run(model, arguments)["images"][0]["url"])
"""


def test_callers_who_insist_on_https_get_their_pictures(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make the certificate with")
    (command,) = re.findall(r"^ {4}(openssl req .*?)\n\n", DEPLOY, re.DOTALL | re.MULTILINE)
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    certificate = "--tls-cert", "pictures.crt", "--tls-key", "pictures.key"
    keys = {"ZTURBO_API_KEYS": "ann:key-a"}
    server = ServeProcess(tmp_path / "data", "--io-workers", "1", *certificate, env=keys)
    try:
        base = server.wait_until_ready()
        assert base.startswith("https://127.0.0.1:")
        with httpx.Client(
            verify=ssl.create_default_context(cafile=tmp_path / "pictures.crt"), timeout=REQUEST_SECONDS
        ) as http:
            told = http.post(
                f"{base}/v1/models/{MODEL_ID}?wait={REQUEST_SECONDS:g}",
                json=BODY,
                headers={"Authorization": "Bearer key-a"},
            ).json()
            fals = by_fal_client(base, tmp_path / "pictures.crt")
            for url in (told["output"]["image"], *fals):
                assert url.startswith(f"{base}/v1/files/")
                assert http.get(url).headers["content-type"] == "image/png"
    finally:
        status = server.stop()
    assert status == 0


def by_fal_client(base: str, certificate: Path) -> list[str]:
    """URLs of the pictures; not a constant in the client is touched."""
    host = base.removeprefix("https://")
    env = {
        "FAL_KEY": "key-a",
        "FAL_QUEUE_RUN_HOST": host,
        "FAL_RUN_HOST": f"{host}/fal/run",
        "SSL_CERT_FILE": str(certificate),
    }
    command = [sys.executable, "-c", SCRIPT]
    ran = subprocess.run(
        command,
        input=json.dumps(BODY),
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=REQUEST_SECONDS,
    )
    urls = ran.stdout.split()
    assert len(urls) == 2, ran.stderr
    return urls
