"""Every other way in which the images are started."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import new_stack
from tests.docker.engine import SITE_PACKAGES, Engine
from tests.docker.stack import Stack
from tests.support.processes import free_port

# The first waits for the engine, the base images and ours.
pytestmark = pytest.mark.timeout(900)


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


def test_serve_in_the_worker_s_image_asks_for_a_key(engine: Engine, site_packages: Path | None) -> None:
    words = ["run", "--rm", "--network", "host"]
    if site_packages:
        words += ["--volume", f"{site_packages}:{SITE_PACKAGES}:ro", "--env", f"PYTHONPATH={SITE_PACKAGES}"]
    image = "zturbo-api" if site_packages else "zturbo-worker"
    done = engine.try_docker(*words, "--env", "ZTURBO_MODEL=demo", image, "zturbo", "serve")
    assert done.returncode == 78
    assert "ZTURBO_API_KEYS" in done.stderr
