"""Below the floor of free disk nothing more is taken from callers, and what needs no room goes on."""

import httpx
import pytest

from app.config import Settings
from tests.contract.test_upload import picture, upload
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands, picture_uri
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id
from worker.storage.workspace import INLINE_CHARACTERS

pytestmark = pytest.mark.anyio

FAL = "/fal-ai/z-image/turbo/controlnet/lora"
PICTURE = picture_uri(INLINE_CHARACTERS)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """More is to be kept free than any disk has; `undo` makes room."""
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    return monkeypatch


def refused(answer: httpx.Response, why: str = "GB free") -> None:
    assert answer.status_code == 507, answer.text
    body = answer.json()
    assert body["error_code"] == 507001
    assert why in body["error_message"]
    assert body["detail"] == body["message"] == body["error_message"]
    # Nobody is told to send the same again by itself.
    assert "retry-after" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"


async def test_upload_is_refused_over_every_dialect(
    http: httpx.AsyncClient, settings: Settings, full_disk: pytest.MonkeyPatch
) -> None:
    asked = {"content_type": "image/png", "file_name": "a.png"}
    place = (await http.post("/fal/rest/storage/upload/initiate", json=asked)).json()["upload_url"]
    refused(await upload(http, picture()))
    refused(await http.post("/fal/cdn/files/upload", content=picture()))
    refused(await http.put(place, content=picture()))
    assert not list(settings.data_dir.rglob("upload.png"))
    full_disk.undo()
    assert (await upload(http, picture())).status_code == 200
    assert (await http.put(place, content=picture())).status_code == 200


@pytest.mark.parametrize("submit", [SUBMIT, FAL, "/fal/run" + FAL, "/v1/preprocess"])
async def test_picture_in_a_request_is_refused_over_every_dialect(
    http: httpx.AsyncClient,
    settings: Settings,
    full_disk: pytest.MonkeyPatch,
    hands: WorkerHands,
    submit: str,
) -> None:
    body = DOCUMENTED_INPUT | {"image_url": PICTURE, "preprocess": "depth"}
    refused(await http.post(submit, json=body))
    assert not (settings.data_dir / "work").exists()
    assert hands.client.zcard("zturbo:line") == 0


async def test_control_map_is_not_made_where_it_cannot_be_kept(
    http: httpx.AsyncClient, full_disk: pytest.MonkeyPatch
) -> None:
    refused(await http.post("/v1/preprocess", json={"image_url": "https://a.test/x.png"}))


async def test_request_that_needs_no_room_is_taken_and_its_picture_kept(
    http: httpx.AsyncClient, settings: Settings, full_disk: pytest.MonkeyPatch
) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT)
    assert answer.status_code == 200, answer.text
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", picture())
    assert (await http.get(f"/v1/files/{file_id}/image.png")).content == picture()


async def test_one_key_has_half_of_the_disk_over_every_dialect(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = picture(), picture(colour="red")
    monkeypatch.setattr("models.disk.spare_bytes", lambda folder: 2 * len(first))
    asked = {"content_type": "image/png", "file_name": "a.png"}
    place = (await http.post("/fal/rest/storage/upload/initiate", json=asked)).json()["upload_url"]
    other = (await http.post("/fal/rest/storage/upload/initiate", json=asked)).json()["upload_url"]
    assert (await http.put(place, content=first)).status_code == 200
    half = "more than half of the disk that can be used"
    for _ in range(2):
        refused(await upload(http, second), half)
        refused(await http.post("/fal/cdn/files/upload", content=second), half)
        refused(await http.put(other, content=second), half)
        refused(await http.post(SUBMIT, json=DOCUMENTED_INPUT | {"image_url": PICTURE}), half)
    assert len(list(settings.data_dir.rglob("upload.png"))) == 1
    assert not list(settings.data_dir.rglob("image_url.txt"))
    # Its file is there already, and is counted once.
    assert (await http.put(place, content=second)).status_code == 200
    monkeypatch.undo()
    assert (await upload(http, second)).status_code == 200


async def test_owner_in_the_url_that_takes_a_file_cannot_be_changed(http: httpx.AsyncClient) -> None:
    asked = {"content_type": "image/png", "file_name": "a.png"}
    place = (await http.post("/fal/rest/storage/upload/initiate", json=asked)).json()["upload_url"]
    assert "owner=local&" in place
    assert (await http.put(place.replace("owner=local", "owner=bob"), content=picture())).status_code == 404
