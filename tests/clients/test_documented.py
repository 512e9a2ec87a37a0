"""The code in docs/clients.md and docs/api.md runs as it stands, and the versions are those that are run."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
DOCUMENT = (DOCS / "clients.md").read_text()
SECONDS = 60
BASE = "http://127.0.0.1:8000"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "photo.png")
    return tmp_path


def told(command: list[str], folder: Path) -> list[str]:
    env = os.environ | {"FAL_KEY": "any"}
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def code(language: str, base: str, document: str = DOCUMENT) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)
    assert BASE in found
    return found.replace(BASE, base)


@pytest.mark.usefixtures("work")
def test_python_code_runs_as_it_stands(base: str, photo: Path) -> None:
    pytest.importorskip("fal_client", reason="fal-client is not installed")
    *log, url = told([sys.executable, "-c", code("python", base)], photo)
    assert url == f"{base}/v1/files/{'0' * 32}/image.png"
    assert set(log) <= {"Step 1 of 8"}


@pytest.mark.usefixtures("work")
def test_javascript_code_runs_as_it_stands(base: str, photo: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node on the PATH")
    if not (HERE / "node_modules" / "@fal-ai" / "client").is_dir():
        pytest.skip("@fal-ai/client is not installed: npm install --prefix tests/clients")
    (photo / "node_modules").symlink_to(HERE / "node_modules")
    (photo / "script.mjs").write_text(code("javascript", base))
    *log, url = told(["node", "script.mjs"], photo)
    assert url == f"{base}/v1/files/{'0' * 32}/image.png"
    assert set(log) <= {"Step 1 of 8"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the PATH")
@pytest.mark.usefixtures("work")
def test_curl_lines_run_as_they_stand(base: str, photo: Path) -> None:
    lines = code("sh", base, (DOCS / "api.md").read_text())
    picture, upload = told(["bash", "-ec", lines.replace("curl ", "curl -sfw '\\n' ")], photo)
    assert json.loads(picture)["output"]["image"] == f"{base}/v1/files/{'0' * 32}/image.png"
    assert httpx.get(json.loads(upload)["url"]).content == (photo / "photo.png").read_bytes()


def test_versions_are_those_that_are_run() -> None:
    rows = dict(re.findall(r"^\| \[(\S+)\]\(.*?\) \(\w+\) \| (\S+) \|", DOCUMENT, re.MULTILINE))
    pinned = json.loads((HERE / "package.json").read_text())["dependencies"]
    assert rows == {"fal-client": importlib.metadata.version("fal-client"), **pinned}
