"""fal's own JavaScript client, as it is on npm, sent here by its two ways of being sent elsewhere."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.clients.javascript import needs, run
from tests.support.http_api import WorkerHands
from tests.support.processes import wait_for


def told(base: str, way: str, what: str, **env: str) -> dict[str, Any]:
    needs("@fal-ai/client")
    return run("fal_client.mjs", base, way, what, **env)


@pytest.fixture(params=["proxy", "middleware"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_subscribe_gives_the_picture(base: str, way: str, mode: str) -> None:
    outcome = told(base, way, mode)
    assert outcome["data"]["images"][0]["url"] == f"{base}/v1/files/{'0' * 32}/image.png"
    assert outcome["data"]["seed"] == 7
    assert set(outcome["seen"]) <= {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}
    assert set(outcome["said"]) <= {"Step 1 of 8", "Step 8 of 8"}


@pytest.mark.usefixtures("work")
def test_run_waits_for_the_result(base: str, way: str) -> None:
    assert told(base, way, "run")["data"]["seed"] == 7


def test_blob_in_the_input_is_uploaded(base: str, way: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "PNG")
    outcome = told(base, way, "upload", PICTURE=base64.b64encode(file.getvalue()).decode())
    record = httpx.get(f"{base}/v1/requests/{outcome['requestId']}").json()
    assert httpx.get(record["input"]["image_url"]).content == file.getvalue()


def test_cancelled_request_is_completed_with_an_error(base: str, way: str) -> None:
    assert told(base, way, "cancel") == {"status": "COMPLETED", "error": "cancelled"}


def test_bad_body_is_the_clients_own_validation_error(base: str, way: str) -> None:
    outcome = told(base, way, "refused")
    assert (outcome["name"], outcome["status"]) == ("ValidationError", 422)
    assert outcome["faults"] == [{"loc": ["body", "image_url"], "msg": "is required", "type": "missing"}]


def test_failed_request_throws_the_reason(base: str, way: str, hands: WorkerHands) -> None:
    def fail() -> None:
        wait_for(lambda: hands.client.zcard("zturbo:line"))
        hands.fail("fetch_failed", "image_url: nobody is there.")

    with ThreadPoolExecutor() as pool:
        pool.submit(fail)
        assert told(base, way, "failed") == {"status": 422, "message": "image_url: nobody is there."}


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/fal-ai/z-image/x",
        "https://example.com/fal-ai/z-image/x",
        "https://queue.fal.run/v1/models",
        "https://rest.fal.ai/tokens/",
    ],
)
def test_proxy_goes_nowhere_else(base: str, target: str) -> None:
    answer = httpx.post(f"{base}/fal/proxy", headers={"x-fal-target-url": target})
    assert answer.status_code == 404
