"""POST /v1/requests/{request_id}/cancel: 202 for every known id."""

import httpx
import pytest

from app.config import Settings
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, picture_uri
from worker.storage.workspace import INLINE_CHARACTERS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def request_id(http: httpx.AsyncClient) -> str:
    request_id: str = (await http.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
    return request_id


async def cancel(http: httpx.AsyncClient, request_id: str, query: str = "") -> tuple[str, str]:
    answer = await http.post(f"/v1/requests/{request_id}/cancel{query}")
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"request_id", "status", "outcome"}
    assert body["request_id"] == request_id
    return body["status"], body["outcome"]


async def test_waiting_request_is_cancelled(http: httpx.AsyncClient, request_id: str) -> None:
    assert await cancel(http, request_id) == ("cancelled", "cancelled")


async def test_cancel_that_is_sent_again_says_the_same(http: httpx.AsyncClient, request_id: str) -> None:
    await cancel(http, request_id)
    assert await cancel(http, request_id) == ("cancelled", "cancelled")


@pytest.mark.parametrize(("query", "steps"), [("", 0), ("?force=true", 3)])
async def test_picture_sent_in_the_request_is_deleted_with_the_cancel(
    http: httpx.AsyncClient, settings: Settings, hands: WorkerHands, query: str, steps: int
) -> None:
    picture = picture_uri(INLINE_CHARACTERS)
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT | {"image_url": picture})
    request_id = answer.json()["request_id"]
    assert (settings.data_dir / "work" / request_id).is_dir()
    if steps:
        hands.generate(step=steps)
    assert await cancel(http, request_id, query) == ("cancelled", "cancelled")
    assert not (settings.data_dir / "work" / request_id).exists()


async def test_running_request_goes_on(http: httpx.AsyncClient, request_id: str, hands: WorkerHands) -> None:
    hands.generate(step=3)
    assert await cancel(http, request_id) == ("in_progress", "not_cancellable")


async def test_running_request_is_cancelled_by_force(
    http: httpx.AsyncClient, request_id: str, hands: WorkerHands
) -> None:
    running, token = hands.generate(step=3)
    assert await cancel(http, request_id, "?force=true") == ("cancelled", "cancelled")
    assert hands.work_queue.beat(running.id, token, 4, 8) == "cancelled"


async def test_finished_request_stays_as_it_is(
    http: httpx.AsyncClient, request_id: str, hands: WorkerHands
) -> None:
    hands.fail("fetch_failed", "No.")
    for query in ("", "?force=true"):
        assert await cancel(http, request_id, query) == ("completed", "not_cancellable")
