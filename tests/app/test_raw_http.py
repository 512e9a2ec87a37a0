"""What a stranger may write to the socket, past any client: no file, no other host, no forged log line."""

import json
import logging
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from app.config import Settings
from app.main import create_app
from tests.support.http_api import served


@pytest.fixture
def base(settings: Settings) -> Iterator[str]:
    with served(create_app(settings), settings) as base:
        yield base


def send(base: str, head: str) -> tuple[int, str]:
    """Status and body of the answer; {host} in `head` is the server's own."""
    url = urlsplit(base)
    assert url.hostname
    with socket.create_connection((url.hostname, url.port or 80), timeout=10) as connection:
        text = head.replace("{host}", f"Host: {url.netloc}\r\nConnection: close")
        connection.sendall(text.encode("latin-1") + b"\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    start, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    return int(start.split()[1]), body


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /v1/files/../../../etc/passwd HTTP/1.1\r\n{host}", 404),
        ("GET /v1/files/%2e%2e%2f%2e%2e/passwd HTTP/1.1\r\n{host}", 404),
        ("GET /v1/files/%00/a.png HTTP/1.1\r\n{host}", 404),
        ("GET /playground/../main.py HTTP/1.1\r\n{host}", 404),
        ("GET /playground/..%2fmain.py HTTP/1.1\r\n{host}", 404),
        ("GET /v1/models HTTP/1.1\r\nConnection: close", 400),
        ("GET /v1/models HTTP/1.1\r\n{host}\r\nHost: evil.example", 400),
        ("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close", 403),
        ("GET /v1/models HTTP/1.1\r\nHost: localhost@evil.example\r\nConnection: close", 403),
        ("GET /v1/models HTTP/1.1\r\nHost: evil.example@localhost\r\nConnection: close", 403),
        ("GET http://evil.example/v1/models HTTP/1.1\r\n{host}", 404),
        ("POST /v1/requests/x/cancel HTTP/1.1\r\n{host}\r\nOrigin: null\r\nContent-Length: 0", 403),
        ("POST /v1/files HTTP/1.1\r\n{host}\r\nContent-Length: 5\r\nContent-Length: 6", 400),
        ("POST /v1/files HTTP/1.1\r\n{host}\r\nContent-Length: -1", 400),
        ("POST /v1/files HTTP/1.1\r\n{host}\r\nContent-Length: \xb2", 400),
    ],
)
def test_malformed_and_misdirected_calls_are_refused(base: str, head: str, status: int) -> None:
    assert send(base, head)[0] == status


def test_answer_has_no_url_of_a_host_that_may_not_stand_in_one(settings: Settings) -> None:
    # Without a key no such host is answered at all.
    settings = settings.model_copy(update={"api_keys": "ann:key"})
    with served(create_app(settings), settings) as base:
        _, body = send(
            base, 'GET / HTTP/1.1\r\nHost: localhost\\@evil.example"><script>\r\nConnection: close'
        )
    assert "evil" not in body
    assert json.loads(body)["name"] == "zturbo"


def test_strangers_do_not_say_where_they_come_from(settings: Settings) -> None:
    # Without a key they are not answered at all.
    settings = settings.model_copy(update={"api_keys": "ann:key"})
    with served(create_app(settings), settings) as base:
        _, body = send(
            base, "GET / HTTP/1.1\r\n{host}\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https"
        )
        assert json.loads(body)["models"] == f"{base}/v1/models"


def test_log_line_cannot_be_forged(base: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert send(base, "GET /v1/requests/x%0aINFO%20forged/status HTTP/1.1\r\n{host}")[0] == 404
    # uvicorn's own, which is switched off (app.http.server), pytest catches all the same.
    written = [vars(record) for record in caplog.records if record.name.startswith("zturbo")]
    assert written
    assert "forged" not in str(written)
