"""The compose file's profile `gpu`, up on a real engine: its pictures, and what its containers may do."""

import re
import time
from pathlib import Path

import pytest

from tests.docker.stack import Stack
from tests.support.http_api import SUBMIT
from tests.support.processes import wait_for

# The first waits for the engine, the base images and ours.
pytestmark = pytest.mark.timeout(900)

WAITING = 12
SERVICES = ("redis", "api", "io-worker", "gpu-worker")
NO_CAPABILITY = "0000000000000000"


def test_picture_is_made_for_who_has_the_key_and_for_nobody_else(gpu_stack: Stack) -> None:
    with gpu_stack.client("not-the-key") as stranger:
        assert stranger.post(SUBMIT, json=gpu_stack.picture).status_code == 401
    (result,) = gpu_stack.results(gpu_stack.submit(1)).values()
    assert result["status"] == "succeeded", result
    assert gpu_stack.file(result).startswith(b"\x89PNG")


@pytest.mark.parametrize("service", SERVICES)
def test_requests_outlast_a_kill_of(service: str, gpu_stack: Stack) -> None:
    waiting = gpu_stack.submit(WAITING)
    gpu_stack.kill(service)
    results = gpu_stack.results(waiting)
    assert {result["status"] for result in results.values()} == {"succeeded"}
    assert all(gpu_stack.file(result).startswith(b"\x89PNG") for result in results.values())
    gpu_stack.wait_until_ready()


def test_requests_and_pictures_are_found_again_after_down_and_up(gpu_stack: Stack) -> None:
    (old,) = gpu_stack.results(gpu_stack.submit(1)).values()
    picture = gpu_stack.file(old)
    waiting = gpu_stack.submit(WAITING)
    gpu_stack.down()
    gpu_stack.up()
    again = gpu_stack.results([old["request_id"], *waiting])
    assert gpu_stack.file(again[old["request_id"]]) == picture
    assert {result["status"] for result in again.values()} == {"succeeded"}


def test_volume_that_root_wrote_is_redis_s_again_by_the_documented_command(gpu_stack: Stack) -> None:
    (old,) = gpu_stack.results(gpu_stack.submit(1)).values()
    command = re.search(
        r"`docker compose (run .*?chown -R) redis: /data`",
        (gpu_stack.checkout / "docs/deploy.md").read_text(),
    )
    assert command
    gpu_stack.compose("stop", "redis")
    gpu_stack.compose(*command[1].split(), "root:", "/data")
    gpu_stack.compose("start", "redis")
    (name,) = gpu_stack.containers("redis")
    wait_for(lambda: gpu_stack.engine.inspect(name)["RestartCount"] > 0, 60)
    gpu_stack.compose(*command[1].split(), "redis:", "/data")
    gpu_stack.wait_until_ready()
    assert gpu_stack.results([old["request_id"]])[old["request_id"]] == old


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_nobody_special(service: str, gpu_stack: Stack) -> None:
    for name in gpu_stack.containers(service):
        pid = gpu_stack.engine.inspect(name)["State"]["Pid"]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert status["Uid"].split()[0] != "0"
        assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"]) == (
            NO_CAPABILITY,
            NO_CAPABILITY,
            "1",
        )
        assert gpu_stack.engine.inspect(name)["HostConfig"]["ReadonlyRootfs"] is True


def test_secrets_are_seen_in_no_container_s_settings_nor_logs(gpu_stack: Stack) -> None:
    password = re.search(r"://:(\w+)@", (gpu_stack.checkout / "secrets/redis_url").read_text())
    assert password
    names = [name for service in SERVICES for name in gpu_stack.containers(service)]
    said = (
        gpu_stack.engine.docker("inspect", *names) + gpu_stack.compose("config") + gpu_stack.compose("logs")
    )
    for name in names:
        pid = gpu_stack.engine.inspect(name)["State"]["Pid"]
        for file in ("environ", "cmdline"):
            said += Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    assert len(said) > 1000
    for secret in (gpu_stack.key, password[1]):
        assert secret not in said


@pytest.mark.parametrize("service", ["api", "io-worker", "gpu-worker"])
def test_stop_in_the_first_second_is_heard(service: str, gpu_stack: Stack) -> None:
    name = gpu_stack.containers(service)[0]
    gpu_stack.engine.docker("stop", name)
    gpu_stack.engine.docker("start", name)
    time.sleep(0.2)
    begun = time.monotonic()
    gpu_stack.engine.docker("stop", "--time", "30", name)
    assert time.monotonic() - begun < 25
    assert gpu_stack.engine.inspect(name)["State"]["ExitCode"] in (0, 143)
    gpu_stack.engine.docker("start", name)
    gpu_stack.wait_until_ready()


def test_every_container_is_well(gpu_stack: Stack) -> None:
    names = [name for service in SERVICES for name in gpu_stack.containers(service)]

    def all_well() -> bool:
        return {gpu_stack.engine.inspect(name)["State"]["Health"]["Status"] for name in names} == {"healthy"}

    wait_for(all_well, 90)
