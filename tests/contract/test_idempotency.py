"""Idempotency-Key: a submit that is sent again makes no second request."""

import base64
import io

import httpx
import pytest
from PIL import Image

from app.config import Settings
from app.main import create_app
from models.schema.model_ids import INPAINTING
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, in_process, picture_uri
from worker.storage.workspace import INLINE_CHARACTERS

pytestmark = pytest.mark.anyio


def white_png() -> bytes:
    """Of the size of `picture_uri`'s, and of bytes that base64 writes without padding."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2), "white").save(file, "PNG")
    return file.getvalue() + bytes(-len(file.getvalue()) % 3)


async def submit(http: httpx.AsyncClient, key: str, **fields: object) -> httpx.Response:
    return await http.post(SUBMIT, json=DOCUMENTED_INPUT | fields, headers={"Idempotency-Key": key})


async def test_same_key_and_body_are_the_same_request(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    first = await submit(http, "a")
    assert (await submit(http, "a")).json() == first.json()
    hands.fail("fetch_failed", "image_url: nobody is there.")
    assert (await submit(http, "a", control_scale=0.9, seed_variance=0)).json() == first.json()
    assert len((await http.get("/v1/requests")).json()["requests"]) == 1
    assert 86_000 < hands.client.ttl(hands.client.keys("zturbo:idempotency:*")[0]) <= 86_400


async def test_another_key_is_another_request(http: httpx.AsyncClient) -> None:
    assert (await submit(http, "a")).json() != (await submit(http, "b")).json()


async def test_same_key_with_another_body_is_a_422(http: httpx.AsyncClient) -> None:
    await submit(http, "a")
    answer = await submit(http, "a", seed=1)
    assert answer.status_code == 422
    assert answer.json()["error_code"] == 422001
    assert "Idempotency-Key" in answer.json()["error_message"]


async def test_key_of_a_refused_body_is_free(http: httpx.AsyncClient) -> None:
    assert (await submit(http, "a", seed="x")).status_code == 422
    assert (await submit(http, "a", seed=1)).status_code == 200


async def test_key_of_a_submit_that_a_full_queue_refused_is_free(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_queue": 1}))
    async with in_process(app) as http:
        first = await submit(http, "a")
        assert (await submit(http, "b")).status_code == 429
        await http.post(f"/v1/requests/{first.json()['request_id']}/cancel")
        assert (await submit(http, "b", seed=1)).status_code == 200
    await app.state.requests.close()


async def test_key_of_a_deleted_request_makes_a_new_one(http: httpx.AsyncClient, hands: WorkerHands) -> None:
    first = (await submit(http, "a")).json()["request_id"]
    hands.fail("fetch_failed", "image_url: nobody is there.")
    await http.delete(f"/v1/requests/{first}")
    again = (await submit(http, "a", seed=1)).json()["request_id"]
    assert again != first
    assert (await submit(http, "a", seed=1)).json()["request_id"] == again


async def test_picture_of_a_repeated_submit_is_kept_once(http: httpx.AsyncClient, settings: Settings) -> None:
    picture = picture_uri(INLINE_CHARACTERS)
    first = (await submit(http, "a", image_url=picture)).json()["request_id"]
    await submit(http, "a", image_url=picture)
    assert [path.name for path in (settings.data_dir / "work").iterdir()] == [first]


async def test_same_key_with_another_large_mask_is_a_422(http: httpx.AsyncClient) -> None:
    white = base64.b64encode(white_png()).decode()
    masks = [f"data:image/png;base64,{white}{'A' * (INLINE_CHARACTERS + more)}" for more in (0, 4)]
    body = {"prompt": "a fox", "image_url": picture_uri(), "seed": 0}
    answers = [
        await http.post(
            f"/v1/models/{INPAINTING}", json=body | {"mask_image_url": mask}, headers={"Idempotency-Key": "a"}
        )
        for mask in (masks[0], masks[0], masks[1])
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 422]
    assert answers[0].json() == answers[1].json()


async def test_keys_of_two_callers_have_nothing_to_do_with_each_other(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_keys": "ann:key-a,bob:key-b"}))
    async with in_process(app, token="key-a") as ann, in_process(app, token="key-b") as bob:
        ids = {
            (await submit(client, "a", seed=seed)).json()["request_id"]
            for client, seed in ((ann, 1), (bob, 2))
        }
    assert len(ids) == 2
    await app.state.requests.close()


async def test_too_long_a_key_is_a_422(http: httpx.AsyncClient) -> None:
    assert (await submit(http, "a" * 256)).status_code == 422
