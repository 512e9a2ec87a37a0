"""Every other way in which the images are started."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import new_stack
from tests.docker.engine import ROOT, SITE_PACKAGES, Engine
from tests.docker.stack import Stack
from tests.support.processes import free_port, wait_for

# The first waits for the engine, the base images and ours.
pytestmark = pytest.mark.timeout(900)

API_MEGABYTES = 330
"""Above the base image, half of it OpenCV."""


@pytest.fixture
def stack(request: pytest.FixtureRequest, engine: Engine, site_packages: Path | None) -> Iterator[Stack]:
    stack = new_stack(engine, request.param, site_packages)
    try:
        yield stack
    finally:
        stack.try_compose("down", "--volumes", "--timeout", "10")


@pytest.mark.parametrize("stack", ["demo", "gpu", "gpus", "workers"], indirect=True)
def test_profile_is_a_whole_file(stack: Stack) -> None:
    stack.compose("config", "--quiet")


@pytest.mark.parametrize("stack", ["demo", "gpus"], indirect=True)
def test_profile_makes_a_picture(stack: Stack) -> None:
    stack.up()
    (result,) = stack.results(stack.submit(1)).values()
    assert result["status"] == "succeeded", result


@pytest.mark.parametrize("stack", ["gpu"], indirect=True)
def test_weights_that_cannot_be_fetched_end_up_with_a_reason(stack: Stack) -> None:
    file = stack.checkout / "override.yml"
    unreachable = 'command: ["zturbo", "pull"]'
    file.write_text(file.read_text().replace('command: ["true"]', unreachable))
    settings = stack.checkout / ".env"
    hub = f"HF_ENDPOINT=http://127.0.0.1:{free_port()}\n"
    settings.write_text(settings.read_text().replace("ZTURBO_MODEL=demo\n", hub))
    done = stack.try_compose("up", "--detach", "--no-build")
    assert done.returncode != 0
    assert "weights" in done.stderr
    assert "cannot be reached" in stack.compose("logs", "weights")


@pytest.mark.parametrize("stack", ["gpu"], indirect=True)
def test_documented_override_chooses_a_card(stack: Stack) -> None:
    page = (stack.checkout / "docs/deploy.md").read_text()
    (override,) = re.findall(r"```yaml\n(services:\n  gpu-worker:\n.*?)```", page, re.DOTALL)
    (stack.checkout / "compose.override.yml").write_text(override)
    # Without -f: Compose finds the override by its name.
    words = ("compose", "--profile", "gpu", "config", "--format", "json")
    services = json.loads(stack.engine.docker(*words, cwd=stack.checkout))["services"]
    (device,) = services["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"], device.get("count")) == ("nvidia", ["1"], None)


def test_folder_of_the_host_in_place_of_the_volume_wants_its_owner(engine: Engine, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    words = ("--volume", f"{data}:/data", "--env", "ZTURBO_HOST=127.0.0.1", "zturbo-api")
    done = engine.try_docker("run", "--rm", *words)
    assert (done.returncode, "/data/secret cannot be read or made" in done.stderr) == (78, True), done.stderr
    command = re.search(r"`(chown .*) FOLDER`", (ROOT / "docs/deploy.md").read_text())
    assert command
    subprocess.run([*command[1].split(), str(data)], check=True)
    name = engine.docker("run", "--rm", "--detach", *words)
    try:
        wait_for((data / "secret").exists)
    finally:
        engine.docker("stop", name)


def test_api_s_image_is_small(engine: Engine) -> None:
    api, base = (engine.inspect(name)["Size"] for name in ("zturbo-api", "python:3.11-slim-bookworm"))
    assert (api - base) / 1e6 <= API_MEGABYTES


def test_serve_in_the_worker_s_image_asks_for_a_key(engine: Engine, site_packages: Path | None) -> None:
    words = ["run", "--rm", "--network", "host"]
    if site_packages:
        words += ["--volume", f"{site_packages}:{SITE_PACKAGES}:ro", "--env", f"PYTHONPATH={SITE_PACKAGES}"]
    image = "zturbo-api" if site_packages else "zturbo-worker"
    done = engine.try_docker(*words, "--env", "ZTURBO_MODEL=demo", image, "zturbo", "serve")
    assert done.returncode == 78
    assert "ZTURBO_API_KEYS" in done.stderr
