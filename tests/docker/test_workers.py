"""The profile `workers`: a second project, as on a second machine, draws what the first one takes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import new_stack
from tests.docker.engine import Engine
from tests.docker.stack import Stack
from tests.support.s3_server import KEYS, S3Server

# The first waits for the engine, the base images and ours.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def address(engine: Engine) -> Iterator[str]:
    """One of this machine that containers of every project reach, as that of a private network is."""
    engine.docker("network", "create", "private")
    (described,) = engine.inspect("private")["IPAM"]["Config"]
    yield described["Gateway"]
    engine.docker("network", "rm", "private")


@pytest.fixture
def store(address: str) -> Iterator[S3Server]:
    server = S3Server(address)
    yield server
    server.stop()


@pytest.fixture
def server(engine: Engine, site_packages: Path | None, address: str, store: S3Server) -> Iterator[Stack]:
    """The API and its Redis alone, on an address that others reach, with a store; docs/deploy.md says how."""
    stack = new_stack(engine, "gpu", site_packages)
    with (stack.checkout / ".env").open("a") as settings:
        settings.write(f"REDIS_BIND={address}\nZTURBO_STORAGE={store.make_bucket('pictures')}\n")
        settings.write(f"AWS_ENDPOINT_URL={store.url}\nAWS_REGION={KEYS['AWS_REGION']}\n")
    override = stack.checkout / "override.yml"
    override.write_text(override.read_text().replace("  redis: {ports: !override []}\n", ""))
    give_keys(stack)
    try:
        stack.compose("up", "--detach", "--no-build", "api")
        yield stack
    finally:
        stack.try_compose("down", "--volumes", "--timeout", "10")


@pytest.fixture
def joining(engine: Engine, site_packages: Path | None, address: str, server: Stack) -> Iterator[Stack]:
    """Workers that know nothing of it but the URL of its Redis and the keys of the store."""
    stack = new_stack(engine, "workers", site_packages)
    url = (server.checkout / "secrets/redis_url").read_text()
    (stack.checkout / "secrets/redis_url").write_text(url.replace("@redis:", f"@{address}:"))
    give_keys(stack)
    try:
        stack.compose("up", "--detach", "--no-build")
        yield stack
    finally:
        stack.try_compose("down", "--volumes", "--timeout", "10")


def give_keys(stack: Stack) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (stack.checkout / "secrets" / name.lower()).write_text(KEYS[name])


def test_workers_elsewhere_draw_what_the_api_takes(server: Stack, joining: Stack) -> None:
    server.wait_until_ready()
    (result,) = server.results(server.submit(1)).values()
    assert result["status"] == "succeeded", result
    assert server.file(result).startswith(b"\x89PNG")
    (name,) = joining.containers("workers")
    # All of it went by the store.
    assert joining.engine.docker("exec", name, "find", "/data", "-name", "*.png") == ""
