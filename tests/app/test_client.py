"""The client against a real server."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.client import Client, ClientError, WaitTimeout
from app.config import Settings
from app.main import create_app
from tests.support.http_api import DOCUMENTED_INPUT, MODEL, PNG, WorkerHands, served
from tests.support.redis_server import RedisServer
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with served(create_app(settings), settings) as base_url, Client(base_url) as client:
        yield client


def test_picture_is_followed_and_saved(
    client: Client, hands: WorkerHands, settings: Settings, tmp_path: Path
) -> None:
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", PNG)
    seen: list[dict[str, Any]] = []

    def move(status: dict[str, Any]) -> None:
        seen.append(status)
        if len(seen) == 1:
            hands.succeed({"image": {"file_id": file_id, "name": "image.png"}, "seed": 7})

    request_id = client.submit(MODEL, DOCUMENTED_INPUT)["request_id"]
    result = client.wait(request_id, move, timeout=20, interval=0.01)

    assert [status["status"] for status in seen] == ["in_queue", "completed"]
    assert (result["status"], result["seed"]) == ("succeeded", 7)
    saved = client.download(result["output"]["image"], tmp_path / "out.png")
    assert saved.read_bytes() == PNG
    assert [path.name for path in tmp_path.glob("*out.png*")] == ["out.png"]


def test_failed_and_cancelled_requests_end_the_wait(client: Client, hands: WorkerHands) -> None:
    failed, cancelled = (client.submit(MODEL, DOCUMENTED_INPUT)["request_id"] for _ in range(2))
    hands.fail("fetch_failed", "No.")
    assert client.cancel(cancelled)["outcome"] == "cancelled"
    assert client.wait(failed)["error"]["message"] == "No."
    assert client.wait(cancelled)["status"] == "cancelled"


def test_wait_ends_in_time(client: Client) -> None:
    request_id = client.submit(MODEL, DOCUMENTED_INPUT)["request_id"]
    with pytest.raises(WaitTimeout, match=request_id):
        client.wait(request_id, timeout=0.1, interval=0.06)


def test_wait_outlasts_a_store_that_restarts(
    redis_server: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"redis_url": redis_server.url})
    pauses: list[float] = []

    def restart_instead_of_sleeping(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            redis_server.kill()
        elif len(pauses) == 2:
            redis_server.start()
            client.cancel(request_id)

    with served(create_app(settings), settings) as base_url, Client(base_url) as client:
        request_id = client.submit(MODEL, DOCUMENTED_INPUT)["request_id"]
        with monkeypatch.context() as patch:
            patch.setattr("app.client.time.sleep", restart_instead_of_sleeping)
            assert client.wait(request_id, interval=0.01)["status"] == "cancelled"
    assert pauses[0] == 0.01
    assert pauses[1] >= 1, "the server's Retry-After"


def test_wait_gives_up_at_once_on_a_request_that_is_unknown(client: Client) -> None:
    started = time.monotonic()
    with pytest.raises(ClientError, match="unknown, was deleted, or has expired") as refusal:
        client.wait("nope")
    assert refusal.value.status == 404
    assert time.monotonic() - started < 5


def test_servers_sentence_is_the_error(client: Client) -> None:
    with pytest.raises(ClientError, match="prompt: is required") as refusal:
        client.submit(MODEL, {"loras": []})
    assert refusal.value.status == 422


def test_token_is_sent_to_the_server(settings: Settings) -> None:
    settings = settings.model_copy(update={"api_keys": "ann:secret"})
    with served(create_app(settings), settings) as base_url:
        with Client(base_url) as client, pytest.raises(ClientError, match="No token"):
            client.submit(MODEL, DOCUMENTED_INPUT)
        with Client(f"{base_url}/", "secret") as client:
            assert client.submit(MODEL, DOCUMENTED_INPUT)["request_id"]


def test_server_that_is_not_there_is_told() -> None:
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(ClientError, match=r"No answer from .*127\.0\.0\.1:9"),
    ):
        client.status("x")


@pytest.mark.parametrize(
    ("base_url", "sentence"),
    [
        ("http://[", "No answer from"),
        ("http://box:port", "is not a URL"),
        ("nowhere", "begin with http:// or https://"),
        ("box:8000", "begin with http:// or https://"),
    ],
)
def test_base_url_that_is_none_is_told(base_url: str, sentence: str) -> None:
    with pytest.raises(ClientError, match=sentence), Client(base_url) as client:
        client.status("x")


def test_missing_file_leaves_nothing_behind(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="This file is unknown"):
        client.download(f"{client.http.base_url}/v1/files/{new_file_id()}/image.png", tmp_path / "out.png")
    with pytest.raises(ClientError, match="could not be fetched"):
        client.download("http://x:y/image.png", tmp_path / "out.png")
    assert not list(tmp_path.glob("*out.png*"))
