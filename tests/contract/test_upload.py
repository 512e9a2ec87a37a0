"""POST /v1/files: a picture sent here is an `image_url` afterwards."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.config import Settings
from app.main import create_app
from tests.support.http_api import in_process
from worker.inputs.input_image import read_source
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

pytestmark = pytest.mark.anyio


def picture(format: str = "PNG", colour: str = "teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), colour).save(file, format)
    return file.getvalue()


async def upload(http: httpx.AsyncClient, data: bytes, name: str = "photo.png") -> httpx.Response:
    return await http.post("/v1/files", files={"file": (name, data)})


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
async def test_picture_is_kept_as_it_was_sent(http: httpx.AsyncClient, format: str) -> None:
    answer = await upload(http, picture(format), "../../evil.exe")

    assert answer.status_code == 200
    body = answer.json()
    assert body == {
        "url": f"http://localhost:8000/v1/files/{body['file_id']}/upload.{format.lower()}",
        "file_id": body["file_id"],
        "name": f"upload.{format.lower()}",
        "content_type": f"image/{format.lower()}",
        "size": len(picture(format)),
    }
    file = await http.get(body["url"])
    assert file.content == picture(format)
    assert file.headers["content-type"] == body["content_type"]


async def test_jpeg_with_further_pictures_behind_it_is_kept_as_one(http: httpx.AsyncClient) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 12))])
    assert (await upload(http, file.getvalue())).json()["name"] == "upload.jpeg"


async def test_heic_is_kept_as_such(http: httpx.AsyncClient) -> None:
    data = (Path(__file__).parents[1] / "worker" / "inputs" / "pictures" / "corner.heic").read_bytes()
    kept = (await upload(http, data)).json()
    file = await http.get(kept["url"])
    assert (file.content, file.headers["content-type"]) == (data, "image/heif")


async def test_upload_is_read_as_image_url_without_a_round_trip(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    url = (await upload(http, picture())).json()["url"]
    storage = Storage(open_objects(settings))
    path = httpx.URL(url).path
    for image_url in (url, path, f"https://pictures.example/under/a/path{path}"):
        assert read_source(image_url, "image_url", settings, storage) == picture()


async def test_same_bytes_are_kept_once_for_an_owner(http: httpx.AsyncClient, settings: Settings) -> None:
    first, again = [(await upload(http, picture())).json() for _ in range(2)]
    other = (await upload(http, picture(colour="red"))).json()
    assert first == again
    assert first["file_id"] != other["file_id"]
    assert len([path for path in (settings.data_dir / "outputs").rglob("*") if path.is_file()]) == 2


@pytest.fixture
async def keyed(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    app = create_app(settings.model_copy(update={"api_keys": "ann:key-a,bob:key-b"}))
    async with in_process(app, token="key-a") as ann, in_process(app, token="key-b") as bob:
        yield ann, bob
    await app.state.requests.close()


async def test_another_owner_gets_another_id_for_the_same_bytes(
    keyed: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    ids = {(await upload(client, picture())).json()["file_id"] for client in keyed}
    assert len(ids) == 2


async def test_id_outlives_a_restart(settings: Settings, http: httpx.AsyncClient) -> None:
    before = (await upload(http, picture())).json()
    app = create_app(settings)
    async with in_process(app) as restarted:
        assert (await upload(restarted, picture())).json() == before
    await app.state.requests.close()


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"\x89PNG\r\n\x1a\n but no more"])
async def test_what_is_no_picture_is_a_422(http: httpx.AsyncClient, data: bytes) -> None:
    answer = await upload(http, data)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "file"]
    assert answer.json()["error_message"].startswith("file: ")


@pytest.mark.parametrize(
    "call",
    [
        {"json": {"file": "x"}},
        {"files": {"picture": b"x"}},
        {"data": {"file": "x"}, "files": {"other": b""}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
    ],
)
async def test_body_without_the_file_is_a_422(http: httpx.AsyncClient, call: dict[str, object]) -> None:
    answer = await http.post("/v1/files", **call)  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert answer.json()["error_message"].startswith("file: ")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/images/edits"])
async def test_form_in_another_charset_is_a_415(http: httpx.AsyncClient, path: str) -> None:
    """Of a megabyte in punycode the decoder of Python would make nothing for half a minute."""
    kind = "multipart/form-data; boundary=b; charset=punycode"
    text = (
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\naa-'
        + b"9a" * 400_000
        + b"\r\n--b--\r\n"
    )
    answer = await http.post(path, content=text, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error_message"]) == (
        415,
        "The form's text is in 'punycode'; send it in UTF-8.",
    )


async def test_too_large_a_body_is_refused_while_it_arrives(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_image_bytes": 1000}))

    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)
        pytest.fail("it was read to its end")

    async with in_process(app) as http:
        answer = await http.post(
            "/v1/files", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
    assert answer.status_code == 413
    await app.state.requests.close()


async def test_upload_needs_a_token(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_keys": "ann:key-a"}))
    async with in_process(app) as stranger:
        assert (await upload(stranger, picture())).status_code == 401
    await app.state.requests.close()
