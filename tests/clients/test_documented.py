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

from app.config import Settings
from tests.clients.javascript import HERE, SECONDS, needs
from tests.support.http_api import PNG
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

DOCS = HERE.parents[1] / "docs"
DOCUMENT = (DOCS / "clients.md").read_text()
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


def section(heading: str) -> str:
    _, _, rest = DOCUMENT.partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0]


def code(language: str, base: str, document: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)
    assert BASE in found
    return found.replace(BASE, base)


@pytest.mark.usefixtures("work")
def test_python_code_runs_as_it_stands(base: str, photo: Path) -> None:
    pytest.importorskip("fal_client", reason="fal-client is not installed")
    *log, url = told([sys.executable, "-c", code("python", base, section("fal-client"))], photo)
    assert url == f"{base}/v1/files/{'0' * 32}/image.png"
    assert set(log) <= {"Step 1 of 8", "Step 8 of 8"}


@pytest.mark.usefixtures("work")
def test_javascript_code_runs_as_it_stands(base: str, photo: Path) -> None:
    needs("@fal-ai/client")
    (photo / "node_modules").symlink_to(HERE / "node_modules")
    (photo / "script.mjs").write_text(code("javascript", base, section("@fal-ai/client")))
    *log, url = told(["node", "script.mjs"], photo)
    assert url == f"{base}/v1/files/{'0' * 32}/image.png"
    assert set(log) <= {"Step 1 of 8", "Step 8 of 8"}


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    ("heading", "package"),
    [("openai", "openai"), ("huggingface_hub", "huggingface_hub"), ("The AI SDK", "ai")],
)
def test_code_that_saves_the_picture_runs_as_it_stands(
    base: str, settings: Settings, tmp_path: Path, heading: str, package: str
) -> None:
    Storage(open_objects(settings)).put("0" * 32, "image.png", PNG)
    if heading == "The AI SDK":
        needs(package)
        (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
        (tmp_path / "script.mjs").write_text(code("javascript", base, section(heading)))
        told(["node", "script.mjs"], tmp_path)
    else:
        pytest.importorskip(package, reason=f"{package} is not installed")
        told([sys.executable, "-c", code("python", base, section(heading))], tmp_path)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (2, 2)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the PATH")
@pytest.mark.usefixtures("work")
def test_curl_lines_run_as_they_stand(base: str, photo: Path) -> None:
    lines = code("sh", base, (DOCS / "api.md").read_text())
    picture, upload = told(["bash", "-ec", lines.replace("curl ", "curl -sfw '\\n' ")], photo)
    assert json.loads(picture)["output"]["image"] == f"{base}/v1/files/{'0' * 32}/image.png"
    assert httpx.get(json.loads(upload)["url"]).content == (photo / "photo.png").read_bytes()


def test_versions_are_those_that_are_run() -> None:
    rows = re.findall(r"^\| \[(\S+)\]\(.*?\) \((\w+)\)[^|]* \| (\d\S+) \|", DOCUMENT, re.MULTILINE)
    pinned = json.loads((HERE / "package.json").read_text())["dependencies"]
    python = ("fal-client", "openai", "huggingface_hub")
    assert set(rows) == {
        *((name, "Python", importlib.metadata.version(name)) for name in python),
        # The AI SDK's own parts are named in its row.
        *((name, "JavaScript", pinned[name]) for name in pinned if not name.startswith("@ai-sdk/")),
    }
