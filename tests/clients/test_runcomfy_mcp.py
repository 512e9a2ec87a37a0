"""The calls of the hosted service's own MCP server (runcomfy-com/runcomfy-mcp, MIT), replayed.

Recorded on 2026-11-27 from its unmodified `RunComfyModelAPIClient` at commit d625e05, given the base URL of
`zturbo serve --model demo`, going through submit, status until done, result, the picture, cancel, and
each error. It takes a non-null `error_code` in any answer for an error, and reads `error_message` first.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.main import create_app
from tests.clients.conftest import Work
from tests.support.http_api import DOCUMENTED_INPUT, PNG, SUBMIT, WorkerHands, served
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

KEY = "hunter2"
SENT = {
    "Accept-Encoding": "gzip, deflate",
    "Authorization": f"Bearer {KEY}",
    "Accept": "application/json",
    "User-Agent": "runcomfy-mcp/1.0",
    "X-RunComfy-Client": "mcp",
}
ENDED = {"completed", "cancelled", "failed"}


@pytest.fixture
def client(settings: Settings, hands: WorkerHands) -> Iterator[httpx.Client]:
    settings = settings.model_copy(update={"api_keys": f"me:{KEY}"})
    Storage(open_objects(settings)).put("0" * 32, "image.png", PNG)
    work = Work(hands)
    with (
        served(create_app(settings), settings) as base,
        httpx.Client(base_url=base, headers=SENT, follow_redirects=True) as client,
    ):
        yield client
        work.close()


def taken(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert answer.is_success
    assert body.get("error_code") is None
    return body


def test_request_is_submitted_followed_fetched_and_cancelled_too_late(client: httpx.Client) -> None:
    request_id = taken(client.post(SUBMIT, json=DOCUMENTED_INPUT))["request_id"]
    status = ""
    while status not in ENDED:
        status = taken(client.get(f"/v1/requests/{request_id}/status"))["status"]
    assert status == "completed"
    result = taken(client.get(f"/v1/requests/{request_id}/result"))
    assert result["status"] == "succeeded"
    # By a client without the token.
    picture = httpx.get(result["output"]["image"], follow_redirects=True)
    assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
    cancelled = taken(client.post(f"/v1/requests/{request_id}/cancel"))
    assert (cancelled["status"], cancelled["outcome"]) == ("completed", "not_cancellable")


@pytest.mark.parametrize(
    ("method", "path", "status", "error_code", "words"),
    [
        ("POST", SUBMIT, 422, 422001, "prompt: is required"),
        ("POST", "/v1/models/no/model", 404, 400001, "No model 'no/model' here"),
        ("GET", "/v1/requests/nobody/status", 404, 404001, "This request is unknown"),
    ],
)
def test_error_is_told_where_the_client_reads_it(
    client: httpx.Client, method: str, path: str, status: int, error_code: int, words: str
) -> None:
    answer = client.request(method, path, json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["error_code"]) == (status, error_code)
    assert words in answer.json()["error_message"]


def test_wrong_token_is_told(client: httpx.Client) -> None:
    answer = client.post(SUBMIT, json={}, headers={"Authorization": "Bearer wrong"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, 400004)
