"""`zturbo serve` from start to stop, and what is left of it when it is killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.client import Client
from tests.e2e.conftest import MODEL_ID, Make, data_uri, photograph, run
from tests.support.processes import alive, wait_for
from tests.support.serve_process import ServeProcess

BODY = {
    "prompt": "a fox",
    "image_url": data_uri(photograph("astronaut")),
    "loras": [],
    "num_inference_steps": 2,
}
ALL = {"redis", "api", "io", "gpu"}


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What `serve` says when it does not start; it must not take long to say it."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--model", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 78, done.stdout + done.stderr
    return " ".join(done.stderr.split())


def test_it_says_what_it_chose_and_when_it_is_ready(server: ServeProcess, url: str) -> None:
    assert "model: demo, which draws small pictures" in server.output
    assert "keys: none, so any token is taken, but from this machine only" in server.output
    (redis,) = (line for line in server.lines if line.startswith("zturbo | redis: "))
    # Redis itself says nothing here: its warnings at every start are no news to who starts a server.
    assert Path(redis.partition(", which logs to ")[2]).exists()
    assert [
        line for line in server.lines if line.startswith(" redis |") and "starting again" not in line
    ] == []
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert server.lines.count(f"ready: {url}") == 1


def test_log_follows_a_request_through_every_part_and_quotes_nothing_of_it(
    server: ServeProcess, make: Make
) -> None:
    made = make(prompt="a secret of the logs")
    request_id = made.result["request_id"]

    def told(words: str) -> list[str]:
        return [line for line in server.lines if request_id in line and words in line]

    # The last line is written after the record that was waited for.
    wait_for(lambda: told("stage=finish"))
    ended = [line.partition("stage=")[2].split()[0] for line in told("stage ended")]
    assert ended == ["prepare", "generate", "finish"]
    assert {line.split("|")[0].strip().split("-")[0] for line in told("")} >= {"api", "io", "gpu"}
    assert "secret of the logs" not in server.output
    assert "base64" not in server.output
    assert made.result["output"]["image"].split("/")[-2] not in server.output


def test_nothing_is_left_after_kill_9_nor_sigterm_and_requests_are_found_again(tmp_path: Path) -> None:
    first = ServeProcess(tmp_path / "data", "--io-workers", "1")
    try:
        before = run(first.wait_until_ready(), BODY).result
        started = first.descendants()
        assert set(started) == ALL
        first.process.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(alive(pid) for pid in started.values()), seconds=10)
    finally:
        first.stop()

    second = ServeProcess(tmp_path / "data", "--io-workers", "1")
    try:
        result = httpx.get(f"{second.wait_until_ready()}/v1/requests/{before['request_id']}/result").json()
        assert result["status"] == "succeeded"
        assert httpx.get(result["output"]["image"]).status_code == 200
        started = second.descendants()
        assert set(started) == ALL
    finally:
        status = second.stop()
    assert status == 0
    assert [name for name, pid in started.items() if alive(pid)] == []
    assert second.lines[-1] == "zturbo | stopped"


def test_killed_parts_are_restarted_and_the_request_at_hand_is_not_lost(
    server: ServeProcess, url: str
) -> None:
    first = server.descendants()
    with Client(url) as client:
        request_id = client.submit(MODEL_ID, BODY | {"num_inference_steps": 8})["request_id"]
        wait_for(lambda: client.status(request_id)["status"] == "in_progress", seconds=60)
        for part in ("gpu", "api", "redis"):
            os.kill(first[part], signal.SIGKILL)
        result = client.wait(request_id, timeout=240)
    assert result["status"] == "succeeded"
    second = server.descendants()
    assert all(first[part] != second[part] for part in ("api", "gpu", "redis"))
    assert httpx.get(f"{url}/readyz", timeout=10).status_code == 200


def test_second_serve_on_the_same_data_is_refused(server: ServeProcess, url: str) -> None:
    (data_dir,) = (line.split("data: ")[1] for line in server.lines if line.startswith("zturbo | data: "))
    said = refused("--port", "0", "--data-dir", data_dir)
    assert f"Another `zturbo serve` (process {server.process.pid}) uses {data_dir}" in said


def test_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port), "--data-dir", str(tmp_path))
    assert f"Cannot listen on 127.0.0.1, port {port}: Address already in use. Choose" in said
    assert "--port 0" in said


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For root too, who may write everywhere."""
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    if shutil.which("mount") is None:
        pytest.skip("root may write here, and there is no mount here")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("root may write here, and may mount nothing")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_data_folder_that_is_read_only_is_told(tmp_path: Path) -> None:
    with read_only(tmp_path):
        said = refused("--port", "0", "--data-dir", str(tmp_path))
    assert "is read-only for this user. Let this user write there, or choose another by --data-dir." in said


def test_secret_that_is_none_is_told_by_the_server_and_by_the_api_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    assert "secret has 0 bytes of at least 32" in refused("--port", "0", "--data-dir", str(tmp_path))
    api = subprocess.run(
        [sys.executable, "-m", "app", "api", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ZTURBO_DATA_DIR": str(tmp_path)},
    )
    assert api.returncode == 78
    assert "secret has 0 bytes of at least 32" in " ".join(api.stderr.split())


def test_other_machines_are_not_served_without_a_key(tmp_path: Path) -> None:
    said = refused("--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))  # noqa: S104
    assert "without a key" in said
    assert "ZTURBO_API_KEYS" in said


def test_setting_that_is_none_is_told_by_its_name(tmp_path: Path) -> None:
    assert "ZTURBO_MAX_QUEUE" in refused("--data-dir", str(tmp_path), env={"ZTURBO_MAX_QUEUE": "many"})


def test_redis_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    said = refused(
        "--redis-url", "redis://:hunter2@127.0.0.1:9/0", "--port", "0", "--data-dir", str(tmp_path)
    )
    assert "--redis-url" in said
    assert "hunter2" not in said
