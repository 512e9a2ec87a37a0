"""The bytes that a server has in hand are bounded, whoever sends and however slowly."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.http import body as body_reader
from app.http.in_pieces import PIECE_BYTES
from app.http.multipart import ENVELOPE_BYTES
from app.main import create_app
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, picture_uri, served
from tests.support.processes import wait_for
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

BOUND = 4_000_000
KEYS = {name: f"token-of-{name}" for name in ("ann", "bob", "cyd")}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "api_keys": ",".join(f"{name}:{token}" for name, token in KEYS.items()),
            "max_in_flight_bytes": BOUND,
            "max_body_bytes": BOUND // 2,
            "max_image_bytes": BOUND // 2 - ENVELOPE_BYTES,
        }
    )


@pytest.fixture
def base(settings: Settings) -> Iterator[str]:
    with served(create_app(settings), settings) as base:
        yield base


def submit(base: str, name: str, size: int = 0, **options: Any) -> httpx.Response:
    body = DOCUMENTED_INPUT | {"image_url": picture_uri(size)}
    headers = {"Authorization": f"Bearer {KEYS[name]}"} | options.pop("headers", {})
    return httpx.post(base + SUBMIT, json=body, headers=headers, **options)


def is_refused(answer: httpx.Response) -> bool:
    if answer.status_code == 503:
        assert (answer.json()["error_code"], answer.headers["retry-after"]) == (503001, "2")
        assert "send this again in 2 s" in answer.json()["message"]
    return answer.status_code == 503


@contextmanager
def half_sent(base: str, name: str, size: int, rest: int = 1) -> Iterator[socket.socket]:
    """A body of which so many bytes have been sent, and the rest never is."""
    url = httpx.URL(base)
    with socket.create_connection((url.host, url.port or 80)) as connection:
        head = (
            f"POST {SUBMIT} HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nAuthorization: Bearer {KEYS[name]}\r\n"
        )
        connection.sendall(f"{head}Content-Length: {size + rest}\r\n\r\n".encode() + b" " * size)
        yield connection


def is_full(base: str, name: str, size: int) -> bool:
    """So many bytes are refused. None is sent, as it would count, and another's last ones might not fit."""
    with half_sent(base, name, 0, size) as connection:
        connection.settimeout(1)
        try:
            return connection.recv(100).startswith(b"HTTP/1.1 503 ")
        except TimeoutError:
            return False


def test_one_key_has_half_of_the_bound_and_others_are_served(base: str) -> None:
    with half_sent(base, "ann", BOUND // 4):
        wait_for(lambda: is_full(base, "ann", BOUND // 4 + 1), 60)
        assert is_refused(submit(base, "ann", BOUND // 4))
        assert submit(base, "bob", BOUND // 4).status_code == 200
    wait_for(lambda: submit(base, "ann", BOUND // 4).status_code == 200)


def test_bound_holds_over_all_keys_and_for_bodies_of_no_declared_length(base: str) -> None:
    size = BOUND // 2 - 1000
    with half_sent(base, "ann", size), half_sent(base, "bob", size):
        wait_for(lambda: is_full(base, "cyd", 3_000), 60)
        assert is_refused(submit(base, "cyd", 3_000))

        def chunks() -> Iterator[bytes]:
            yield json.dumps(DOCUMENTED_INPUT).encode()
            yield b" " * 3_000

        headers = {"Authorization": f"Bearer {KEYS['cyd']}"}
        assert is_refused(httpx.post(base + SUBMIT, content=chunks(), headers=headers))
        assert httpx.get(base + "/v1/models", headers=headers).status_code == 200
    wait_for(lambda: submit(base, "cyd", 1_000).status_code == 200)


def test_aborted_uploads_leave_nothing_behind(base: str) -> None:
    for _ in range(20):
        with half_sent(base, "ann", BOUND // 4):
            pass
    wait_for(lambda: submit(base, "ann", BOUND // 4).status_code == 200)


def test_call_that_waits_holds_its_body_no_more(base: str) -> None:
    waiting = threading.Thread(
        target=submit, args=(base, "ann", BOUND // 3), kwargs={"params": {"wait": "3"}, "timeout": 60}
    )
    waiting.start()
    headers = {"Authorization": f"Bearer {KEYS['ann']}"}
    wait_for(lambda: httpx.get(base + "/v1/stats", headers=headers).json()["in_line"] == 1)
    assert submit(base, "ann", BOUND // 3).status_code == 200
    assert waiting.is_alive()
    waiting.join()


def test_other_calls_are_answered_while_a_large_body_is_parsed(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, go_on = threading.Event(), threading.Event()
    parse = body_reader._parse

    def slowly(*body: Any) -> object:
        parsing.set()
        assert go_on.wait(60)
        return parse(*body)

    monkeypatch.setattr(body_reader, "_parse", slowly)
    sending = threading.Thread(
        target=submit, args=(base, "ann", body_reader.LARGE_BYTES), kwargs={"timeout": 60}
    )
    sending.start()
    assert parsing.wait(60)
    assert httpx.get(base + "/healthz").status_code == 200
    go_on.set()
    sending.join()


def test_files_that_nobody_takes_count_too(settings: Settings) -> None:
    # More than the buffers of two sockets.
    size = 20_000_000
    settings = settings.model_copy(update={"max_in_flight_bytes": 3 * size})
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "a.png", b"\0" * size)
    path = f"/v1/files/{file_id}/a.png"
    with served(create_app(settings), settings) as base:
        with httpx.stream("GET", base + path) as slow:
            assert slow.status_code == 200
            assert is_refused(httpx.get(base + path))
        wait_for(lambda: httpx.get(base + path).status_code == 200)
        assert len(httpx.get(base + path).content) == size > PIECE_BYTES


def test_pictures_in_an_answer_that_nobody_takes_count_too(settings: Settings, hands: WorkerHands) -> None:
    size = 12_000_000
    settings = settings.model_copy(update={"max_in_flight_bytes": 4 * size})
    image = {"file_id": new_file_id(), "name": "a.png", "content_type": "image/png", "size": size}
    Storage(open_objects(settings)).put(image["file_id"], image["name"], b"\0" * size)
    headers = {"Authorization": f"Bearer {KEYS['ann']}"}
    with served(create_app(settings), settings) as base:
        asked = {"prompt": "a fox", "sync_mode": True}
        taken = httpx.post(f"{base}/fal-ai/z-image/turbo", json=asked, headers=headers).json()
        hands.succeed({"image": image | {"width": 1, "height": 1}, "seed": 1, "prompt": "", "timings": {}})
        with httpx.stream("GET", taken["response_url"], headers=headers) as slow:
            assert slow.status_code == 200
            assert is_refused(httpx.get(taken["response_url"], headers=headers))
        wait_for(lambda: httpx.get(taken["response_url"], headers=headers).status_code == 200)
