"""`make docker`: a real engine, real images, the compose file really up. Never part of `make test`."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docker.engine import ROOT, Engine, NoEngine, missing, running_engine
from tests.docker.stack import Stack, make_secrets

if Path(os.environ.get("SSL_CERT_FILE", "")).is_relative_to(ROOT / "tests"):
    # The engine and what it builds may speak to servers that the system's certificates are for.
    del os.environ["SSL_CERT_FILE"]

FULL = os.environ.get("DOCKER_TESTS") == "full"
"""With the worker's image, of 7 GB; else workers run in the API's, on what is installed here."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if reason := missing():
        pytest.skip(reason)
    with ExitStack() as running:
        try:
            engine = running.enter_context(running_engine())
        except NoEngine as error:
            pytest.skip(f"no Docker engine can be had here: {error}")
        context = copy_checkout(engine.folder / "context")
        engine.build("api", context)
        if FULL:
            engine.build("worker", context)
        yield engine


def copy_checkout(folder: Path) -> Path:
    """What git knows or would take, as it lies here."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def site_packages() -> Path | None:
    return None if FULL else Path(sysconfig.get_path("platlib"))


def new_stack(engine: Engine, profile: str, site_packages: Path | None) -> Stack:
    checkout = copy_checkout(Path(tempfile.mkdtemp(prefix=f"{profile}-", dir=engine.folder)))
    make_secrets(checkout)
    # The model that needs neither a GPU nor weights. No lease runs out while a test waits: what a killed
    # container had in hand goes on because its successor says so.
    settings = {
        "ZTURBO_MODEL": "demo",
        "ZTURBO_LEASE_SECONDS": "600",
        "COMPOSE_PROJECT_NAME": f"zturbo-{checkout.name}",
    }
    (checkout / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return Stack(engine, checkout, profile, site_packages)


@pytest.fixture(scope="session")
def gpu_stack(engine: Engine, site_packages: Path | None) -> Iterator[Stack]:
    """The profile with a container for each worker, up and ready."""
    stack = new_stack(engine, "gpu", site_packages)
    try:
        stack.up()
        yield stack
    finally:
        stack.try_compose("down", "--volumes", "--timeout", "10")
