"""What only a real connection shows: raw slashes, no redirects, large bodies, the URLs that a caller gets."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from app.config import Settings
from app.main import create_app
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, served

ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/"),
    ("GET", "/v1/models/categories"),
    ("GET", "/v1/models/categories/"),
    ("GET", SUBMIT),
    ("GET", f"{SUBMIT}/"),
    ("POST", "/v1/models"),
    ("POST", "/v1/models/"),
    ("POST", f"{SUBMIT}/"),
    ("GET", "/v1/requests/x/status"),
    ("GET", "/v1/requests/x/status/"),
    ("GET", "/v1/requests/x/result/"),
    ("POST", "/v1/requests/x/cancel/"),
    ("GET", "/v1/files/x/y.png/"),
    ("GET", "/healthz/"),
    ("GET", "/readyz/"),
    ("GET", "/metrics/"),
    ("GET", ""),
]


@pytest.fixture
def base_url(settings: Settings) -> Iterator[str]:
    with served(create_app(settings), settings) as url:
        yield url


def test_documented_calls_work_by_the_urls_of_the_answer(base_url: str) -> None:
    submitted = httpx.post(base_url + SUBMIT, json=DOCUMENTED_INPUT).json()

    status = httpx.get(submitted["status_url"])
    assert (status.status_code, status.json()["queue_position"]) == (200, 0)
    result = httpx.get(submitted["result_url"])
    assert (result.status_code, result.json()["status"]) == (200, "in_queue")
    cancelled = httpx.post(submitted["cancel_url"])
    assert (cancelled.status_code, cancelled.json()["outcome"]) == (202, "cancelled")


def test_slashes_of_the_model_id_may_be_raw_or_escaped(base_url: str) -> None:
    prefix, model = SUBMIT[: len("/v1/models/")], SUBMIT[len("/v1/models/") :]
    for path in (prefix + model, prefix + model.replace("/", "%2F")):
        assert ask(base_url, f"POST {path} HTTP/1.1").startswith("HTTP/1.1 422 ")


def ask(base_url: str, request_line: str) -> str:
    """The answer to a call whose path is sent as it stands."""
    with socket.create_connection(
        (urlsplit(base_url).hostname, urlsplit(base_url).port), timeout=5
    ) as connection:
        connection.sendall(f"{request_line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def test_nothing_is_ever_redirected(base_url: str) -> None:
    with httpx.Client(base_url=base_url, follow_redirects=False) as http:
        for method, path in ROUTES:
            answer = http.request(method, path)
            assert answer.status_code not in range(300, 400), (method, path)
            assert answer.status_code != 409


def test_too_large_body_is_refused_so_that_the_caller_reads_why(settings: Settings) -> None:
    # Far more than the sockets' buffers hold: the caller is still sending when the answer comes.
    body = b'{"prompt": "' + b"x" * 20_000_000 + b'"}'
    settings = settings.model_copy(update={"max_body_bytes": 1_000_000})
    with served(create_app(settings), settings) as base_url:
        answer = httpx.post(base_url + SUBMIT, content=body, timeout=30)
        assert (answer.status_code, answer.json()["error_code"]) == (413, 413001)
        answer = httpx.post(
            base_url + SUBMIT, content=iter([body[:10_000_000], body[10_000_000:]]), timeout=30
        )
        assert (answer.status_code, answer.json()["error_code"]) == (413, 413001)


def test_server_does_not_name_its_software(base_url: str) -> None:
    assert "server" not in httpx.get(f"{base_url}/healthz").headers


@pytest.fixture
def proxied(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"trusted_proxies": "127.0.0.1", "api_keys": "ann:secret"}))


def test_urls_are_those_of_the_trusted_proxy(proxied: FastAPI, settings: Settings) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pictures.example.com"}
    with served(proxied, settings) as base_url:
        answer = httpx.post(
            base_url + SUBMIT, json=DOCUMENTED_INPUT, headers=headers | {"Authorization": "Bearer secret"}
        )
    assert answer.json()["status_url"].startswith("https://pictures.example.com/v1/requests/")
