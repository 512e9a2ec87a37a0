"""Detectors whose weights are not there: said by the schema, and by a 422 before anything waits in line."""

from typing import Any

import httpx
import pytest

from app.config import Settings
from app.main import create_app
from models.command import zturbo
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, in_process
from worker.queue.registry import WorkerInfo

pytestmark = pytest.mark.anyio

LACKING = WorkerInfo("gpu-1", "gpu", "ready", lacks={"depth": 1_100_000_000, "pose": 1_100_000_000})
PARTLY = WorkerInfo("gpu-2", "gpu", "busy", lacks={"pose": 510_000_000})
FAL = "/fal-ai/z-image/turbo/controlnet/lora"


async def told(http: httpx.AsyncClient) -> dict[str, Any]:
    schema = (await http.get(SUBMIT)).json()["input_schema"]
    availability: dict[str, Any] = schema["properties"]["preprocess"]["x-availability"]
    return availability


async def test_schema_says_which_maps_can_be_made_and_what_brings_the_others(
    http: httpx.AsyncClient, hands: WorkerHands
) -> None:
    hands.register(LACKING)
    availability = await told(http)
    assert list(availability) == ["none", "canny", "depth", "pose"]
    assert availability["canny"] == {"available": True}
    reason = availability["depth"].pop("reason")
    assert availability["depth"] == {
        "available": False,
        "command": f"{zturbo()} pull detectors",
        "size": 1_100_000_000,
    }
    assert "depth" in reason
    assert f"`{zturbo()} pull detectors`" in reason


async def test_one_worker_that_has_the_weights_is_enough(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    hands.register(LACKING, PARTLY)
    assert {name: each["available"] for name, each in (await told(http)).items()} == {
        "none": True,
        "canny": True,
        "depth": True,
        "pose": False,
    }


@pytest.mark.parametrize("path", [SUBMIT, FAL, "/v1/preprocess"])
async def test_map_that_cannot_be_made_is_refused_at_the_submit(
    http: httpx.AsyncClient, hands: WorkerHands, path: str
) -> None:
    hands.register(LACKING)
    answer = await http.post(path, json=DOCUMENTED_INPUT | {"preprocess": "pose"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "preprocess"]
    assert f"`{zturbo()} pull detectors` on it fetches them (1.1 GB)" in answer.json()["error_message"]
    assert hands.client.zcard("zturbo:line") == 0


async def test_nothing_is_refused_while_no_worker_tells(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    hands.register(WorkerInfo("io-1", "io", "ready"))
    assert all(each["available"] for each in (await told(http)).values())
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT | {"preprocess": "depth"})
    assert answer.status_code == 200


async def test_models_are_listed_while_redis_is_away(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:9"}))
    async with in_process(app) as http:
        assert all(each["available"] for each in (await told(http)).values())
    await app.state.requests.close()
