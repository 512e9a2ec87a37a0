"""With ZTURBO_STORAGE the same calls give the same answers: files come from here, never by a redirect."""

import io
from datetime import timedelta

import httpx
import pytest
from PIL import Image

from app.config import Settings
from tests.support.http_api import WorkerHands, picture_uri
from tests.support.s3_server import S3Server
from tests.worker.runtime.crew import MODEL
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(settings: Settings, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("worker.storage.s3.RETRIES", timedelta(milliseconds=100))
    return settings.model_copy(update={"storage": bucket})


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), "teal").save(file, "PNG")
    return file.getvalue()


async def submit(http: httpx.AsyncClient, **fields: str) -> httpx.Response:
    body = {"prompt": "a fox", "image_url": "https://example.com/a.png", "loras": []}
    return await http.post(f"/v1/models/{MODEL}", json=body | fields)


async def test_upload_comes_back_from_here(http: httpx.AsyncClient, settings: Settings) -> None:
    url = (await http.post("/v1/files", files={"file": ("a.png", picture())})).json()["url"]
    answer = await http.get(url)
    assert (answer.status_code, answer.content) == (200, picture())
    assert answer.headers["content-type"] == "image/png"
    assert (await http.head(url)).headers["content-length"] == str(len(picture()))
    assert not (settings.data_dir / "outputs").exists()


async def test_deleted_request_leaves_nothing_in_the_store(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings
) -> None:
    objects, file_id = open_objects(settings), new_file_id()
    Storage(objects).put(file_id, "image.png", picture())
    request_id = (await submit(http)).json()["request_id"]
    hands.succeed({"image": {"file_id": file_id, "name": "image.png"}})
    assert (await http.delete(f"/v1/requests/{request_id}")).status_code == 200
    assert list(objects.list("outputs")) == []


async def test_server_without_its_store_is_not_ready(http: httpx.AsyncClient, s3_server: S3Server) -> None:
    store = "The store of pictures (ZTURBO_STORAGE)"
    assert store not in (await http.get("/readyz")).text
    s3_server.faults(status=500)
    assert f"{store} answers 500." in (await http.get("/readyz")).json()["reasons"]


async def test_store_that_is_away_is_a_503_and_loses_nothing(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings, s3_server: S3Server
) -> None:
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", picture())
    request_id = (await submit(http)).json()["request_id"]
    hands.succeed({"image": {"file_id": file_id, "name": "image.png"}})
    s3_server.faults(status=500)
    refused = [
        await http.get(f"/v1/files/{file_id}/image.png"),
        await http.delete(f"/v1/requests/{request_id}"),
        await http.post("/v1/files", files={"file": ("a.png", picture())}),
        await submit(http, image_url=picture_uri(20_000)),
    ]
    assert [(answer.status_code, "retry-after" in answer.headers) for answer in refused] == [(503, True)] * 4
    assert "ZTURBO_STORAGE" in refused[0].json()["message"]
    s3_server.faults()
    assert (await http.get(f"/v1/files/{file_id}/image.png")).content == picture()
    assert (await http.delete(f"/v1/requests/{request_id}")).status_code == 200
    assert (await http.get(f"/v1/files/{file_id}/image.png")).status_code == 404
