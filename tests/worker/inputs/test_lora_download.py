"""LoRAs by URL: fetched once, checked, kept by their content."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import Cancelled, CheckpointError, DiskFull
from tests.worker.inputs.web import Handler, Web
from worker.config import WorkerSettings
from worker.errors import FetchError, StorageError
from worker.inputs.lora_download import Downloaded, Downloads

WEIGHTS = b"weights" * 1000
FIELD = "loras[0].path"


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(_env_file=None, data_dir=tmp_path, allow_hosts="127.0.0.1", max_lora_bytes=100_000)


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


def nothing(*_: object) -> None:
    pass


def get(settings: WorkerSettings, url: str) -> Downloaded:
    return Downloads(settings).get(url, FIELD, nothing, nothing)


def left_over(settings: WorkerSettings) -> list[str]:
    return [path.name for path in settings.cache_path.rglob("*.part")]


def test_file_is_named_by_its_content_and_fetched_once(settings: WorkerSettings, web: Web) -> None:
    url = web.on("/style.safetensors", lambda call: call.reply(WEIGHTS))
    first = get(settings, url)
    assert first.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert first.path.name == f"{first.sha256}.safetensors"
    assert first.path.read_bytes() == WEIGHTS
    assert get(settings, url) == first
    assert len(web.seen) == 1
    assert left_over(settings) == []


def test_same_content_from_two_urls_is_kept_once(settings: WorkerSettings, web: Web) -> None:
    paths = {get(settings, web.on(path, lambda call: call.reply(WEIGHTS))).path for path in ("/a", "/b")}
    assert len(paths) == 1


def test_url_is_fetched_anew_after_a_day(settings: WorkerSettings, web: Web) -> None:
    url = web.on("/a", lambda call: call.reply(WEIGHTS))
    get(settings, url)
    (entry,) = (settings.cache_path / "urls").glob("*.json")
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"at": time.time() - 86_401}))
    web.on("/a", lambda call: call.reply(b"other weights"))
    assert get(settings, url).path.read_bytes() == b"other weights"


def test_file_that_was_damaged_since_is_fetched_anew(settings: WorkerSettings, web: Web) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() != WEIGHTS:
            raise CheckpointError("It is cut short.")

    url = web.on("/a", lambda call: call.reply(WEIGHTS))
    path = get(settings, url).path
    path.write_bytes(WEIGHTS[:100])
    assert Downloads(settings).get(url, FIELD, check, nothing).path.read_bytes() == WEIGHTS
    (entry,) = (settings.cache_path / "urls").glob("*.json")
    entry.write_bytes(b"{")
    assert get(settings, url).path.read_bytes() == WEIGHTS
    assert len(web.seen) == 3


def test_file_that_fails_its_check_is_not_kept(settings: WorkerSettings, web: Web) -> None:
    def check(path: Path) -> None:
        raise CheckpointError(f"not a checkpoint: {path.read_bytes()[:7]!r}")

    url = web.on("/a", lambda call: call.reply(WEIGHTS))
    with pytest.raises(CheckpointError, match="weights"):
        Downloads(settings).get(url, FIELD, check, nothing)
    assert list((settings.cache_path / "files").iterdir()) == []
    assert left_over(settings) == []
    get(settings, url)


@pytest.mark.parametrize(("body", "length"), [(bytes(100_001), ""), (b"weights", "50000")])
def test_too_large_or_cut_off_file_is_not_kept(
    settings: WorkerSettings, web: Web, body: bytes, length: str
) -> None:
    def reply(call: Handler) -> None:
        call.reply(body, Content_Length=length, Connection="close")
        call.close_connection = True

    with pytest.raises(FetchError, match=r"^loras\[0\]\.path: "):
        get(settings, web.on("/a", reply))
    assert list((settings.cache_path / "files").iterdir()) == []
    assert left_over(settings) == []


def test_request_that_is_cancelled_stops_its_download(settings: WorkerSettings, web: Web) -> None:
    def stop() -> None:
        raise Cancelled("no longer wanted")

    with pytest.raises(Cancelled):
        Downloads(settings).get(web.on("/a", lambda call: call.reply(WEIGHTS)), FIELD, nothing, stop)
    assert left_over(settings) == []


def test_two_workers_fetch_a_url_once(settings: WorkerSettings, web: Web) -> None:
    def slow(call: Handler) -> None:
        time.sleep(0.2)
        call.reply(WEIGHTS)

    url = web.on("/a", slow)
    found: list[Downloaded] = []
    threads = [threading.Thread(target=lambda: found.append(get(settings, url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert len(web.seen) == 1


def test_download_is_refused_below_the_floor_of_free_disk(
    settings: WorkerSettings, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.on("/a", lambda call: call.reply(WEIGHTS))
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    with pytest.raises(DiskFull, match="are kept free"):
        get(settings, url)
    assert left_over(settings) == []
    monkeypatch.undo()
    assert get(settings, url).path.read_bytes() == WEIGHTS


def test_cache_that_cannot_be_written_is_told(settings: WorkerSettings, web: Web) -> None:
    settings.cache_path.write_text("in the way")
    with pytest.raises(StorageError, match=r"^loras\[0\]\.path: the file could not be kept here"):
        get(settings, web.on("/a", lambda call: call.reply(WEIGHTS)))
