"""GET /v1/requests/{request_id}/result: 200 for every known id, in every state."""

import re
from datetime import datetime
from typing import Any

import httpx
import pytest

from app.config import Settings
from tests.support.http_api import DOCUMENTED_INPUT, MODEL, PNG, SUBMIT, WorkerHands
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

pytestmark = pytest.mark.anyio


async def submitted(http: httpx.AsyncClient, **changes: Any) -> str:
    request_id: str = (await http.post(SUBMIT, json=DOCUMENTED_INPUT | changes)).json()["request_id"]
    return request_id


def stored(settings: Settings) -> dict[str, Any]:
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", PNG)
    return {"file_id": file_id, "name": "image.png", "content_type": "image/png", "size": len(PNG)}


async def test_succeeded_request_has_the_documented_fields_and_ours(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings
) -> None:
    request_id = await submitted(http)
    image = stored(settings)
    hands.succeed({"image": image, "seed": 42, "timings": {"denoise": 1.5}})

    answer = await http.get(f"/v1/requests/{request_id}/result")

    assert answer.status_code == 200
    body = answer.json()
    created_at, finished_at = body.pop("created_at"), body.pop("finished_at")
    expires_at = body.pop("expires_at")
    assert {"prepare", "finish", "denoise"} == body.pop("timings").keys()
    assert body.pop("gpu_seconds") >= 0
    assert body == {
        "request_id": request_id,
        "status": "succeeded",
        "output": {"image": f"http://localhost:8000/v1/files/{image['file_id']}/image.png"},
        "model_id": MODEL,
        "seed": 42,
    }
    for time in (created_at, finished_at, expires_at):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)
    assert finished_at >= created_at
    kept = datetime.fromisoformat(expires_at) - datetime.fromisoformat(finished_at)
    assert kept.days == settings.retention_days


async def test_several_pictures_come_as_images_each_with_its_seed(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings
) -> None:
    request_id = await submitted(http, num_images=2)
    images = [stored(settings), stored(settings)]
    hands.succeed({"image": images[0], "images": images, "seed": 42, "seeds": [42, 43]})

    body = (await http.get(f"/v1/requests/{request_id}/result")).json()

    urls = [f"http://localhost:8000/v1/files/{image['file_id']}/image.png" for image in images]
    assert (body["output"], body["seed"], body["seeds"]) == ({"images": urls}, 42, [42, 43])


async def test_picture_is_fetched_without_a_token(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings
) -> None:
    request_id = await submitted(http)
    hands.succeed({"image": stored(settings), "seed": 0})
    url = (await http.get(f"/v1/requests/{request_id}/result")).json()["output"]["image"]

    answer = await http.get(url)

    assert answer.status_code == 200
    assert answer.content == PNG
    assert answer.headers["content-type"] == "image/png"


async def test_cost_is_told_when_asked_for(http: httpx.AsyncClient) -> None:
    request_id = await submitted(http)
    assert (await http.get(f"/v1/requests/{request_id}/result?include_cost=true")).json()["cost"] == 0
    assert "cost" not in (await http.get(f"/v1/requests/{request_id}/result")).json()


async def test_unfinished_request_is_a_200_with_its_state_and_no_output(
    http: httpx.AsyncClient, hands: WorkerHands
) -> None:
    request_id = await submitted(http)
    for state in ("in_queue", "in_progress"):
        answer = await http.get(f"/v1/requests/{request_id}/result")
        assert answer.status_code == 200
        assert answer.json()["status"] == state
        assert not {"output", "error", "finished_at", "error_code"} & set(answer.json())
        if state == "in_queue":
            hands.generate(step=1)


async def test_cancelled_request_reads_cancelled(http: httpx.AsyncClient) -> None:
    request_id = await submitted(http)
    await http.post(f"/v1/requests/{request_id}/cancel")

    answer = await http.get(f"/v1/requests/{request_id}/result")
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert "output" not in answer.json()


async def test_extras_of_the_engine_are_passed_on(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings
) -> None:
    request_id = await submitted(http, stray=1)
    control_image = stored(settings)
    lora = {"name": "x.safetensors", "scale": 0.5, "matched": 12, "unmatched": 0}
    extras = {
        "model": "demo",
        "loras": [lora],
        "controlnet": "union",
        "expanded_prompt": "more",
        "warnings": ["odd"],
    }
    hands.succeed({"image": stored(settings), "seed": 1, "control_image": control_image} | extras)

    body = (await http.get(f"/v1/requests/{request_id}/result")).json()
    assert body["model"] == "demo"
    assert body["loras"] == [lora]
    assert body["controlnet"] == "union"
    assert body["expanded_prompt"] == "more"
    assert body["control_image"].endswith(f"/v1/files/{control_image['file_id']}/image.png")
    assert body["warnings"] == ["Unknown field 'stray' was ignored.", "odd"]
