"""fal's own Python client, as it is on PyPI: only the addresses in it are others."""

import base64
import io
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.clients.conftest import OUTPUT
from tests.contract.exchanges import events
from tests.contract.test_prechecks import FAULTY_MASKS, IMAGE
from tests.support.http_api import WorkerHands
from tests.support.processes import wait_for

fal_client = pytest.importorskip("fal_client", reason="fal-client is not installed")

MODEL = "fal-ai/z-image/turbo/controlnet/lora"
CONSTANTS = {
    "QUEUE_URL_FORMAT": "/",
    "RUN_URL_FORMAT": "/fal/run/",
    "REST_URL": "/fal/rest",
    "CDN_URL": "/fal/cdn",
}
"""What docs/clients.md tells to set, and what to."""

ARGUMENTS = {"prompt": "a fox", "image_url": "https://example.com/photo.jpg"}


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def client(base: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, path in CONSTANTS.items():
        monkeypatch.setattr(f"fal_client.client.{name}", base + path)
    client = fal_client.SyncClient(key="any")
    opened: list[httpx.Client] = []
    open_cdn = fal_client.SyncClient._get_cdn_client
    monkeypatch.setattr(fal_client.SyncClient, "_get_cdn_client", lambda self: kept(opened, open_cdn(self)))
    yield client
    # It has no way of its own to be closed.
    for each in (client._client, *opened):
        each.close()


def kept(opened: list[httpx.Client], client: httpx.Client) -> httpx.Client:
    opened.append(client)
    return client


@pytest.mark.usefixtures("work")
def test_subscribe_gives_the_picture(client: Any, base: str) -> None:
    seen: list[Any] = []
    result = client.subscribe(MODEL, ARGUMENTS, with_logs=True, on_queue_update=seen.append)
    assert result == {
        "images": [
            {
                "url": f"{base}/v1/files/{'0' * 32}/image.png",
                "width": 512,
                "height": 512,
                "content_type": "image/png",
                "file_name": "image.png",
                "file_size": 3,
            }
        ],
        "seed": 7,
        "prompt": "a fox",
        "has_nsfw_concepts": [False],
        "timings": {"denoise": 0.5},
    }
    assert isinstance(seen[-1], fal_client.Completed)
    assert {type(status) for status in seen} <= {
        fal_client.Queued,
        fal_client.InProgress,
        fal_client.Completed,
    }


@pytest.mark.anyio
@pytest.mark.usefixtures("client", "work")
async def test_asynchronous_client_gives_the_picture_too() -> None:
    client = fal_client.AsyncClient(key="any")
    assert (await client.subscribe(MODEL, ARGUMENTS))["seed"] == 7
    await (await client._client).aclose()


def test_status_follows_the_request(client: Any, hands: WorkerHands) -> None:
    handle = client.submit(MODEL, ARGUMENTS)
    assert handle.status(with_logs=True) == fal_client.Queued(position=0)
    running, token = hands.generate(step=1)
    assert handle.status() == fal_client.InProgress(logs=None)
    # fal's own examples loop over it.
    logs = handle.status(with_logs=True).logs
    assert [(line["level"], line["message"]) for line in logs] == [("INFO", "Step 1 of 8")]
    output = {"image": {"file_id": "0" * 32, "name": "a.png", "content_type": "image/png", "width": 1,
                        "height": 1, "size": 1}, "seed": 1, "prompt": "p", "timings": {}}  # fmt: skip
    hands.end(running.id, token, output)
    assert [type(status) for status in handle.iter_events()] == [fal_client.Completed]
    assert client.status(MODEL, handle.request_id) == handle.status()
    assert client.result(MODEL, handle.request_id)["seed"] == 1


TEXT_DEFAULTS = {
    "image_size": "landscape_4_3",
    "num_inference_steps": 8,
    "seed": -1,
    "num_images": 1,
    "enable_prompt_expansion": False,
    "output_format": "png",
    "sync_mode": False,
}
CONTROL_DEFAULTS = TEXT_DEFAULTS | {
    "image_size": "auto",
    "control_scale": 0.75,
    "control_start": 0.0,
    "control_end": 0.8,
    "preprocess": "none",
}
CHANGED_DEFAULTS = TEXT_DEFAULTS | {"image_size": "auto", "strength": 0.6}
INPAINT_DEFAULTS = CHANGED_DEFAULTS | {
    "strength": 1.0,
    "control_scale": 0.75,
    "control_start": 0.0,
    "control_end": 0.8,
}
MASKED = {"prompt": "a fox", "image_url": "https://example.com/a.png"} | {
    "mask_image_url": "https://example.com/mask.png"
}
PROMPT = {"prompt": "a fox"}
SIZE = {"image_size": {"width": 500, "height": 700}}
VARIED = {"seed_variance": 0.1}


@pytest.mark.parametrize(
    ("model", "arguments", "made"),
    [
        ("turbo", PROMPT, TEXT_DEFAULTS),
        ("turbo", PROMPT | SIZE, TEXT_DEFAULTS | {"image_size": "496x704"}),
        ("turbo/lora", PROMPT | VARIED, TEXT_DEFAULTS | VARIED | {"loras": []}),
        ("turbo/controlnet", ARGUMENTS, CONTROL_DEFAULTS),
        ("turbo/controlnet/lora", ARGUMENTS, CONTROL_DEFAULTS | {"loras": []}),
        (
            "turbo/controlnet/lora",
            ARGUMENTS | SIZE,
            CONTROL_DEFAULTS | {"loras": [], "image_size": "496x704"},
        ),
        ("turbo/image-to-image", ARGUMENTS, CHANGED_DEFAULTS),
        ("turbo/image-to-image/lora", ARGUMENTS, CHANGED_DEFAULTS | {"loras": []}),
        ("turbo/inpaint", MASKED, INPAINT_DEFAULTS),
        ("turbo/inpaint/lora", MASKED | SIZE, INPAINT_DEFAULTS | {"loras": [], "image_size": "496x704"}),
    ],
)
def test_input_is_ours_with_fals_defaults(
    client: Any, base: str, model: str, arguments: dict[str, Any], made: dict[str, Any]
) -> None:
    handle = client.submit(f"fal-ai/z-image/{model}", arguments)
    record = httpx.get(f"{base}/v1/requests/{handle.request_id}").json()
    assert record["model_id"] == f"tongyi-mai/z-image/{model.replace('inpaint', 'inpainting')}"
    assert record["input"] == made | {
        name: arguments[name] for name in ("prompt", "image_url", "mask_image_url") if name in arguments
    }


@pytest.mark.parametrize(
    ("size", "message"),
    [
        # A text model takes no size of an image.
        ("auto", r"image_size: 'auto' is not one of 'square_hd', .* or 'landscape_16_9'"),
        ({"width": 512, "height": 2049}, r"image_size\.height: must be at most 2048"),
        ({"width": 255}, r"image_size\.width: must be at least 256; image_size\.height: is required"),
    ],
)
def test_bad_size_is_told_as_what_it_is_meant_to_be(client: Any, size: Any, message: str) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as error:
        client.submit("fal-ai/z-image/turbo", PROMPT | {"image_size": size})
    assert re.fullmatch(message, error.value.response.json()["message"])


def test_log_says_what_was_ignored_and_changed(client: Any, base: str) -> None:
    handle = client.submit("fal-ai/z-image/turbo", PROMPT | SIZE | {"stray": 1})
    logs = httpx.get(f"{base}/fal-ai/z-image/requests/{handle.request_id}/status?logs=1").json()["logs"]
    assert [(line["level"], line["message"]) for line in logs] == [
        ("WARN", "Unknown field 'stray' was ignored."),
        ("WARN", "image_size: 500x700 is off the model's grid; it is 496x704 here."),
    ]
    assert httpx.get(f"{base}/v1/requests/{handle.request_id}/result").json()["warnings"] == [
        line["message"] for line in logs
    ]


def test_bad_body_is_a_422_that_lists_the_faults(client: Any) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as error:
        client.submit(MODEL, {"prompt": "a fox", "num_images": 5, "seed_variance": 2})
    assert error.value.status_code == 422
    assert [fault["loc"][-1] for fault in error.value.response.json()["detail"]] == [
        "num_images",
        "seed_variance",
        "image_url",
    ]


def test_another_of_fals_models_is_told_to_be_elsewhere(client: Any) -> None:
    with pytest.raises(
        fal_client.FalClientHTTPError, match=f"there are here fal-ai/z-image/turbo, .*{MODEL}"
    ):
        client.submit("fal-ai/flux/dev", ARGUMENTS)


def test_failed_request_is_completed_with_the_error(client: Any, hands: WorkerHands) -> None:
    handle = client.submit(MODEL, ARGUMENTS)
    hands.fail("fetch_failed", "image_url: nobody is there.")
    status = handle.status()
    assert (type(status), status.error_type) == (fal_client.Completed, "fetch_failed")
    with pytest.raises(fal_client.FalClientHTTPError, match="nobody is there"):
        handle.get()


def test_faulty_mask_is_told_in_one_sentence(client: Any, hands: WorkerHands) -> None:
    model, good = "fal-ai/z-image/turbo/inpaint", {"prompt": "a fox", "image_url": IMAGE}
    for mask, words in FAULTY_MASKS:
        with pytest.raises(fal_client.FalClientHTTPError) as error:
            client.submit(model, good | {"mask_image_url": mask})
        told = error.value.response.json()
        assert [fault["loc"] for fault in told["detail"]] == [["body", "mask_image_url"]]
        assert error.value.status_code == 422
        assert told["message"].startswith("mask_image_url: ")
        assert words.replace("IMAGE", "image_url") in told["message"]
    handle = client.submit(model, good | {"mask_image_url": "https://example.com/mask.png"})
    hands.fail("fetch_failed", "mask_image_url: example.com is at an address that is not fetched from.")
    with pytest.raises(fal_client.FalClientHTTPError, match="mask_image_url: example") as error:
        handle.get()
    assert error.value.status_code == 422


def test_failure_of_this_server_is_a_500(client: Any, hands: WorkerHands) -> None:
    handle = client.submit(MODEL, ARGUMENTS)
    hands.fail("internal_error", "Something broke on this server.")
    with pytest.raises(fal_client.FalClientHTTPError, match="Something broke") as error:
        handle.get()
    assert error.value.status_code == 500


def test_cancel_is_taken_and_early_results_are_refused(client: Any, base: str) -> None:
    handle = client.submit(MODEL, ARGUMENTS)
    early = httpx.get(handle.response_url)
    assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
    assert early.headers["x-fal-request-id"] == handle.request_id
    client.cancel(MODEL, handle.request_id)
    assert handle.status().error_type == "cancelled"
    again = httpx.put(handle.cancel_url)
    assert (again.status_code, again.json()) == (400, {"status": "ALREADY_COMPLETED"})
    unknown = httpx.put(handle.cancel_url.replace(handle.request_id, "nobody"))
    assert (unknown.status_code, unknown.json()) == (404, {"status": "NOT_FOUND"})


def test_encoded_image_is_taken(client: Any) -> None:
    uri = fal_client.encode_image(Image.new("RGB", (8, 8)), "png")
    assert client.submit(MODEL, ARGUMENTS | {"image_url": uri}).request_id


@pytest.mark.usefixtures("work")
def test_run_waits_for_the_result(client: Any, base: str) -> None:
    assert client.run(MODEL, ARGUMENTS)["images"][0]["url"].startswith(f"{base}/v1/files/")


def test_run_that_fails_is_a_422_with_the_reason(client: Any, hands: WorkerHands) -> None:
    def fail() -> None:
        wait_for(lambda: hands.client.zcard("zturbo:line"))
        hands.fail("fetch_failed", "image_url: nobody is there.")

    with ThreadPoolExecutor() as pool:
        pool.submit(fail)
        with pytest.raises(fal_client.FalClientHTTPError) as error:
            client.run(MODEL, ARGUMENTS)
    assert error.value.status_code == 422
    assert error.value.response.json()["detail"][0]["msg"] == "image_url: nobody is there."


def test_run_that_nobody_begins_in_time_is_sent_once_and_cancelled(client: Any, hands: WorkerHands) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as error:
        client.run(MODEL, ARGUMENTS, start_timeout=1.01)
    assert error.value.status_code == 504
    assert hands.client.zcard("zturbo:line") == 0
    assert len(hands.client.keys("zturbo:req:*")) == 1


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
def test_uploaded_picture_is_good_as_image_url(
    client: Any, base: str, tmp_path: Path, repository: str
) -> None:
    picture = Image.new("RGB", (8, 8), "teal")
    path = tmp_path / "photo.png"
    picture.save(path)
    only = {"repository": repository, "fallback_repository": repository}
    for url in (client.upload_file(path, **only), client.upload_image(picture, "webp", **only)):
        assert url.startswith(f"{base}/v1/files/")
        fetched = httpx.get(url)
        with Image.open(io.BytesIO(fetched.content)) as image:
            assert (image.size, fetched.headers["content-type"]) == ((8, 8), f"image/{image.format.lower()}")
        assert client.submit(MODEL, ARGUMENTS | {"image_url": url}).request_id


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
def test_upload_of_no_picture_is_refused(client: Any, repository: str) -> None:
    only = {"repository": repository, "fallback_repository": repository}
    with pytest.raises(fal_client.FalClientHTTPError) as error:
        client.upload(b"words", "image/png", **only)
    assert error.value.status_code == 422


def test_url_to_upload_to_takes_its_own_picture_once(client: Any, base: str) -> None:
    answer = httpx.post(f"{base}/fal/rest/storage/upload/initiate", json={"content_type": "image/png"})
    url = answer.json()["upload_url"]
    first, second = (png(Image.new("RGB", (8, 8), colour)) for colour in ("teal", "red"))
    assert httpx.put(url, content=first).status_code == 200
    assert httpx.put(url, content=second).status_code == 200
    assert httpx.get(answer.json()["file_url"]).content == first
    for other in (url[:-1] + "x", url.replace("until=", "until=9"), url.replace("/upload.png", "/b.png")):
        assert httpx.put(other, content=first).status_code == 404
    jpeg = httpx.post(f"{base}/fal/rest/storage/upload/initiate", json={"content_type": "image/jpeg"}).json()
    assert httpx.put(jpeg["upload_url"], content=first).status_code == 422
    words = httpx.post(f"{base}/fal/rest/storage/upload/initiate", json={"content_type": "text/plain"})
    assert (words.status_code, words.json()["detail"][0]["loc"]) == (422, ["body", "content_type"])


def test_stream_tells_each_change_under_the_full_path_too(client: Any, base: str) -> None:
    handle = client.submit(MODEL, ARGUMENTS)
    client.cancel(MODEL, handle.request_id)
    told = httpx.get(f"{base}/{MODEL}/requests/{handle.request_id}/status/stream")
    assert '"status":"COMPLETED"' in told.text.replace(" ", "")
    assert told.headers["x-fal-request-id"] == handle.request_id


def test_stream_without_logs_is_silent_about_steps(client: Any, base: str, hands: WorkerHands) -> None:
    handle = client.submit(MODEL, ARGUMENTS)
    running, token = hands.generate(step=1)
    told = []
    with httpx.stream("GET", f"{handle.status_url}/stream") as answer:
        for _, body in events(answer.iter_lines()):
            told.append(body["status"])
            if len(told) == 1:
                for step in range(2, 9):
                    hands.work_queue.beat(running.id, token, step, 8)
                    time.sleep(0.05)
                hands.end(running.id, token, OUTPUT)
    assert told == ["IN_PROGRESS", "COMPLETED"]


def test_sync_mode_answers_with_the_picture_itself(client: Any, hands: WorkerHands, settings: Any) -> None:
    from worker.storage.backend import open_objects
    from worker.storage.pictures import Storage, new_file_id

    picture = png(Image.new("RGB", (8, 8)))
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", picture)
    handle = client.submit(MODEL, ARGUMENTS | {"sync_mode": True})
    image = {"file_id": file_id, "name": "image.png", "content_type": "image/png", "width": 8, "height": 8,
             "size": len(picture)}  # fmt: skip
    hands.succeed({"image": image, "seed": 1, "prompt": "p", "timings": {}})
    url = handle.get()["images"][0]["url"]
    assert url == "data:image/png;base64," + base64.b64encode(picture).decode()


def test_key_is_said_as_fal_says_it(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.main import create_app
    from tests.support.http_api import served

    keyed = settings.model_copy(update={"api_keys": "ann:key-a"})
    with served(create_app(keyed), keyed) as base:
        monkeypatch.setattr("fal_client.client.QUEUE_URL_FORMAT", f"{base}/")
        with closing(fal_client.SyncClient(key="key-a")._client) as http:
            assert http.post(f"{base}/{MODEL}", json=ARGUMENTS).status_code == 200
        stranger = fal_client.SyncClient(key="other")
        with (
            closing(stranger._client),
            pytest.raises(fal_client.FalClientHTTPError, match="is none of this server's keys"),
        ):
            stranger.submit(MODEL, ARGUMENTS)
