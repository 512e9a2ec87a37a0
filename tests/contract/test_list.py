"""GET /v1/requests and DELETE /v1/requests/{id}: the caller's own requests, found again and forgotten."""

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.config import Settings
from tests.support.http_api import DOCUMENTED_INPUT, MODEL, PNG, SUBMIT, WorkerHands, in_process, picture_uri
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id
from worker.storage.workspace import ASIDE

pytestmark = pytest.mark.anyio

OUTPUT = {"image": {"file_id": "0" * 32, "name": "image.png"}, "seed": 7}


async def submit(http: httpx.AsyncClient, **fields: object) -> str:
    request_id: str = (await http.post(SUBMIT, json=DOCUMENTED_INPUT | fields)).json()["request_id"]
    return request_id


async def test_list_is_newest_first_and_has_what_made_each(http: httpx.AsyncClient) -> None:
    older, newer = await submit(http, seed=5), await submit(http)

    answer = await http.get("/v1/requests")

    assert answer.status_code == 200
    body = answer.json()
    assert [request["request_id"] for request in body["requests"]] == [newer, older]
    assert body["next_cursor"] is None
    first = body["requests"][1]
    assert first["status"] == "in_queue"
    assert first["model_id"] == MODEL
    assert first["input"] == first["input"] | DOCUMENTED_INPUT | {"seed": 5, "control_end": 0.4}
    assert "output" not in first
    assert "finished_at" not in first


async def test_listed_request_tells_its_outcome(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    done = await submit(http)
    hands.succeed(OUTPUT)
    failed = await submit(http)
    hands.fail("fetch_failed", "image_url: nobody is there.")

    requests = {each["request_id"]: each for each in (await http.get("/v1/requests")).json()["requests"]}
    result = (await http.get(f"/v1/requests/{done}/result")).json()

    assert {name: requests[done][name] for name in result} == result
    assert (await http.get(f"/v1/requests/{done}")).json() == requests[done]
    assert requests[failed]["status"] == "failed"
    assert requests[failed]["error"]["type"] == "fetch_failed"


async def test_pages_cover_every_request_once(http: httpx.AsyncClient) -> None:
    ids = [await submit(http) for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/v1/requests", params=query)).json()
        seen += [request["request_id"] for request in page["requests"]]
        cursor = page["next_cursor"]
    assert seen == ids[::-1]


async def test_status_filters_by_the_words_of_the_result(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    failed = await submit(http)
    hands.fail("fetch_failed", "image_url: nobody is there.")
    waiting = await submit(http)

    async def listed(status: str) -> list[str]:
        body = (await http.get("/v1/requests", params={"status": status})).json()
        return [request["request_id"] for request in body["requests"]]

    assert await listed("failed") == [failed]
    assert await listed("in_queue") == [waiting]
    assert await listed("succeeded") == []


@pytest.mark.parametrize("query", ["status=completed", "limit=0", "limit=101", "cursor=x", "cursor=-1"])
async def test_faulty_query_is_a_422(http: httpx.AsyncClient, query: str) -> None:
    answer = await http.get(f"/v1/requests?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", query.split("=")[0]]


async def test_large_data_uri_is_not_listed(http: httpx.AsyncClient) -> None:
    await submit(http, image_url=picture_uri(20_000))
    [request] = (await http.get("/v1/requests")).json()["requests"]
    assert request["input"]["image_url"] == ASIDE


async def test_others_requests_are_not_listed(settings: Settings) -> None:
    from app.main import create_app

    app: FastAPI = create_app(settings.model_copy(update={"api_keys": "ann:key-a,bob:key-b"}))
    async with in_process(app, token="key-a") as ann, in_process(app, token="key-b") as bob:
        request_id = await submit(ann)
        assert (await bob.get("/v1/requests")).json() == {"requests": [], "next_cursor": None}
        assert (await bob.delete(f"/v1/requests/{request_id}")).status_code == 404
    await app.state.requests.close()


async def test_deleted_request_and_its_pictures_are_gone(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings
) -> None:
    storage = Storage(open_objects(settings))
    files = [{"file_id": new_file_id(), "name": name} for name in ("image.png", "control.png")]
    for file in files:
        storage.put(file["file_id"], file["name"], PNG)
    request_id = await submit(http)
    hands.succeed({"image": files[0], "control_image": files[1]})

    answer = await http.delete(f"/v1/requests/{request_id}")

    assert answer.status_code == 200
    assert answer.json() == {"request_id": request_id, "deleted": True}
    assert (await http.get(f"/v1/requests/{request_id}/result")).status_code == 404
    assert (await http.get("/v1/requests")).json()["requests"] == []
    left: list[Path] = [path for path in (settings.data_dir / "outputs").rglob("*") if path.is_file()]
    assert left == []


async def test_unfinished_request_is_not_deleted(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    waiting = await submit(http)
    answer = await http.delete(f"/v1/requests/{waiting}")
    assert answer.status_code == 422
    assert answer.json()["error_code"] == 422002
    assert "cancel it" in answer.json()["error_message"]

    await http.post(f"/v1/requests/{waiting}/cancel")
    assert (await http.delete(f"/v1/requests/{waiting}")).status_code == 200


async def test_picture_sent_with_a_cancelled_request_is_deleted_with_it(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    request_id = await submit(http, image_url=picture_uri(40_000))
    assert (settings.data_dir / "work" / request_id).is_dir()
    await http.post(f"/v1/requests/{request_id}/cancel")
    await http.delete(f"/v1/requests/{request_id}")
    assert not (settings.data_dir / "work" / request_id).exists()
