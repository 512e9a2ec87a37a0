"""GET /v1/requests/{request_id}/status, in every state."""

import re
from typing import Any

import httpx
import pytest

from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands

pytestmark = pytest.mark.anyio

ISO_8601 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


async def submitted(http: httpx.AsyncClient) -> str:
    request_id: str = (await http.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
    return request_id


async def status_of(http: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/requests/{request_id}/status")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    assert body["request_id"] == request_id
    assert body["status_url"] == f"http://localhost:8000/v1/requests/{request_id}/status"
    assert body["result_url"] == f"http://localhost:8000/v1/requests/{request_id}/result"
    assert ISO_8601.fullmatch(body["created_at"])
    assert "error_code" not in body
    return body


async def test_waiting_request_tells_how_many_are_ahead(http: httpx.AsyncClient) -> None:
    first, second = await submitted(http), await submitted(http)

    assert (await status_of(http, first))["queue_position"] == 0
    body = await status_of(http, second)
    assert body["status"] == "in_queue"
    assert body["queue_position"] == 1
    assert body["progress"] == 0
    assert set(body) == {
        *("request_id", "status", "queue_position", "status_url", "result_url"),
        *("progress", "created_at"),
    }


async def test_running_request_tells_its_step(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    request_id = await submitted(http)
    hands.generate(step=2, total_steps=8)

    body = await status_of(http, request_id)
    assert body["status"] == "in_progress"
    assert "queue_position" not in body
    assert (body["step"], body["total_steps"], body["progress"]) == (2, 8, 0.25)
    assert ISO_8601.fullmatch(body["started_at"])


async def test_succeeded_request_reads_completed(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    request_id = await submitted(http)
    hands.succeed({"image": {"file_id": "0" * 32, "name": "image.png"}, "seed": 0})

    body = await status_of(http, request_id)
    assert body["status"] == "completed"
    assert body["progress"] == 1
    assert "error" not in body
    assert "queue_position" not in body


async def test_failed_request_reads_completed_in_status_and_failed_in_result(
    http: httpx.AsyncClient, hands: WorkerHands
) -> None:
    request_id = await submitted(http)
    hands.fail("fetch_failed", "image_url: example.com did not answer.")

    body = await status_of(http, request_id)
    assert body["status"] == "completed"
    assert body["error"] == {"type": "fetch_failed", "message": "image_url: example.com did not answer."}

    result = (await http.get(f"/v1/requests/{request_id}/result")).json()
    assert result["status"] == "failed"
    assert result["error"] == body["error"]
    assert "output" not in result


async def test_cancelled_request_reads_cancelled(http: httpx.AsyncClient) -> None:
    request_id = await submitted(http)
    await http.post(f"/v1/requests/{request_id}/cancel")

    body = await status_of(http, request_id)
    assert body["status"] == "cancelled"
    assert "queue_position" not in body
