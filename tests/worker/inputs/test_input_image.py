"""What a caller names as the input image, to bytes."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.inputs.web import Web
from worker.config import WorkerSettings
from worker.errors import FetchError
from worker.inputs.input_image import read_source
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

PIXELS = bytes(range(256))


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(_env_file=None, data_dir=tmp_path, allow_hosts="127.0.0.1", max_image_bytes=1000)


@pytest.fixture
def storage(settings: WorkerSettings) -> Storage:
    return Storage(open_objects(settings))


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


def read(url: str, settings: WorkerSettings, storage: Storage) -> bytes:
    return read_source(url, "image_url", settings, storage)


def data_uri(data: bytes, head: str = "data:image/png;base64,") -> str:
    return head + base64.b64encode(data).decode()


def test_url_is_fetched(settings: WorkerSettings, storage: Storage, web: Web) -> None:
    assert read(web.on("/a.png", lambda call: call.reply(PIXELS)), settings, storage) == PIXELS


def test_file_of_this_server_that_has_expired_is_said_to_be_so_under_any_host(
    settings: WorkerSettings, storage: Storage, web: Web
) -> None:
    path = f"/v1/files/{new_file_id()}/a.png"
    for url in (path, f"http://10.0.0.1{path}", web.on(path, lambda call: call.reply(b"", status=404))):
        with pytest.raises(FetchError, match="there is no such file on this server; it may have expired"):
            read(url, settings, storage)


def test_url_is_fetched_up_to_the_limit(settings: WorkerSettings, storage: Storage, web: Web) -> None:
    url = web.on("/a.png", lambda call: call.reply(bytes(1001)))
    with pytest.raises(FetchError, match=r"image_url: the file is larger than 0\.001 MB"):
        read(url, settings, storage)


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "data:;base64,",
        "DATA:image/jpeg;charset=x;BASE64,",
        "data:text/html;base64,",
    ],
)
def test_data_uri_is_decoded_whatever_type_it_claims(
    head: str, settings: WorkerSettings, storage: Storage
) -> None:
    assert read(data_uri(PIXELS, head), settings, storage) == PIXELS


@pytest.mark.parametrize("size", [9, 10, 11])
def test_data_uri_is_read_as_people_write_it(size: int, settings: WorkerSettings, storage: Storage) -> None:
    data = bytes([0xFB, 0xEF, 0xFF] * 4)[:size]
    padded = base64.b64encode(data).decode()
    ways = {
        "no padding": padded.rstrip("="),
        "url-safe": base64.urlsafe_b64encode(data).decode(),
        "url-safe without padding": base64.urlsafe_b64encode(data).decode().rstrip("="),
        "line breaks": "\r\n".join(padded[at : at + 4] for at in range(0, len(padded), 4)) + "\n",
        "escaped": padded.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    }
    for way, encoded in ways.items():
        assert read(f"data:image/png;base64,{encoded}", settings, storage) == data, way
    assert read(f"data:image/png; base64 ,{padded}", settings, storage) == data


def test_line_breaks_do_not_count_against_the_limit(settings: WorkerSettings, storage: Storage) -> None:
    whole = base64.encodebytes(bytes(1000)).decode()
    assert len(read(f"data:;base64,{whole}", settings, storage)) == 1000


def test_data_uri_is_taken_up_to_the_limit(settings: WorkerSettings, storage: Storage) -> None:
    assert len(read(data_uri(bytes(1000)), settings, storage)) == 1000
    with pytest.raises(FetchError, match="larger than"):
        read(data_uri(bytes(1001)), settings, storage)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png,abc",
        "data:",
        "data:image/png;base64",
        "data:image/png;base64,a*b=",
        "data:;base64,abcde",
        "data:;base64,ab=cdefg",
        "data:;base64,aé==",
    ],
)
def test_bad_data_uri_is_told(url: str, settings: WorkerSettings, storage: Storage) -> None:
    with pytest.raises(FetchError, match=r"^image_url: .*base64"):
        read(url, settings, storage)


@pytest.mark.parametrize("base", ["", "http://localhost:8000", "https://pictures.example.com"])
def test_uploaded_file_is_read_under_any_name_of_this_server(
    base: str, settings: WorkerSettings, storage: Storage
) -> None:
    file_id = new_file_id()
    storage.put(file_id, "photo.png", PIXELS)
    assert read(f"{base}/v1/files/{file_id}/photo.png", settings, storage) == PIXELS


def test_uploaded_file_that_is_gone_is_told(settings: WorkerSettings, storage: Storage) -> None:
    with pytest.raises(FetchError, match="image_url: there is no such file"):
        read(f"/v1/files/{new_file_id()}/photo.png", settings, storage)


def test_path_that_looks_like_an_upload_reaches_no_other_file(
    settings: WorkerSettings, storage: Storage
) -> None:
    with pytest.raises(FetchError):
        read("/v1/files/../../etc/passwd", settings, storage)
