"""Pictures: fixed types, headers that keep a browser from doing anything with them but show them."""

import httpx
import pytest

from app.config import Settings
from tests.support.http_api import PNG
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(open_objects(settings))


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("a.png", "image/png"), ("a.jpg", "image/jpeg"), ("a.jpeg", "image/jpeg"), ("a.webp", "image/webp")],
)
async def test_type_follows_the_name_not_the_bytes(
    http: httpx.AsyncClient, storage: Storage, name: str, content_type: str
) -> None:
    file_id = new_file_id()
    storage.put(file_id, name, b"<script>alert(1)</script>")

    answer = await http.get(f"/v1/files/{file_id}/{name}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type
    assert answer.headers["content-length"] == "25"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_large_file_arrives_whole(http: httpx.AsyncClient, storage: Storage) -> None:
    file_id, data = new_file_id(), bytes(range(256)) * 4000
    storage.put(file_id, "a.png", data)
    assert (await http.get(f"/v1/files/{file_id}/a.png")).content == data


async def test_head_has_the_headers_alone(http: httpx.AsyncClient, storage: Storage) -> None:
    file_id = new_file_id()
    storage.put(file_id, "a.png", PNG)
    answer = await http.head(f"/v1/files/{file_id}/a.png")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(PNG))


async def test_file_that_the_caller_has_is_not_sent_again(http: httpx.AsyncClient, storage: Storage) -> None:
    file_id = new_file_id()
    storage.put(file_id, "a.png", PNG)
    etag = (await http.get(f"/v1/files/{file_id}/a.png")).headers["etag"]
    answer = await http.get(f"/v1/files/{file_id}/a.png", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize("path", ["../../x.png", "%2e%2e%2fx.png", "0/a.png", "a.html", "a.svg", "a", ".png"])
async def test_nothing_else_is_found(http: httpx.AsyncClient, storage: Storage, path: str) -> None:
    file_id = new_file_id()
    storage.put(file_id, "a.png", PNG)
    answer = await http.get(f"/v1/files/{file_id}/{path}")
    assert (answer.status_code, answer.json()["error_code"]) == (404, 404002)
