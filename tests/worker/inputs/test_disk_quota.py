"""The disk that the caches may take."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisAway

from models.in_use import hold
from worker.config import WorkerSettings
from worker.inputs.disk_quota import DiskQuota, InLine


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    cache = tmp_path / "cache"
    for folder in ("files", "urls", "hub", "images"):
        (cache / folder).mkdir(parents=True)
    return cache


def nothing_in_line() -> Collection[str]:
    return ()


def quota(cache: Path, in_line: InLine | None = nothing_in_line, **options: int) -> DiskQuota:
    return DiskQuota(WorkerSettings(_env_file=None, data_dir=cache.parent, **options), in_line)


def kept(cache: Path, name: str, hours: float, size: int = 100) -> Path:
    """A file that was used so many hours ago."""
    path = cache / name
    path.write_bytes(bytes(size))
    at = time.time() - hours * 3600
    os.utime(path, (at, at))
    return path


def test_longest_unused_goes_first_however_lately_it_was_used(cache: Path) -> None:
    files = [kept(cache, f"files/{number}.safetensors", number / 100) for number in range(4)]
    assert quota(cache, max_cache_bytes=250).trim() == 2
    assert [path.exists() for path in files] == [True, True, False, False]
    assert quota(cache, max_cache_bytes=250).trim() == 0


def test_what_a_request_in_line_needs_is_kept_over_the_quota(cache: Path) -> None:
    prepared, by_url, neither = (kept(cache, f"files/{name}.safetensors", 5) for name in "abc")
    url = "https://a.test/b.safetensors"
    entry = cache / "urls" / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
    entry.write_text(json.dumps({"sha256": "b", "at": time.time()}))
    assert quota(cache, lambda: {"a", url}, max_cache_bytes=1).trim() == 1
    assert [path.exists() for path in (prepared, by_url, neither)] == [True, True, False]


def test_nothing_that_a_request_may_need_goes_while_redis_is_away(cache: Path) -> None:
    def away() -> Collection[str]:
        raise RedisAway

    file, image = kept(cache, "files/a.safetensors", 5), kept(cache, "images/a", 5)
    assert quota(cache, away, max_cache_bytes=1, max_image_cache_bytes=1).trim() == 1
    assert (file.exists(), image.exists()) == (True, False)
    assert quota(cache, None, max_cache_bytes=1).trim() == 0
    assert file.exists()


def test_caches_make_room_where_the_disk_is_nearly_full(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, image = kept(cache, "files/a.safetensors", 0), kept(cache, "images/a", 0)
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    assert quota(cache).trim() == 2
    assert not file.exists()
    assert not image.exists()


def test_download_that_was_cut_off_goes_and_one_that_runs_stays(cache: Path) -> None:
    dead, live = kept(cache, "urls/a.part", 2), kept(cache, "urls/b.part", 0)
    draft = kept(cache, ".draft-x", 2)
    assert quota(cache).trim() == 2
    assert (dead.exists(), live.exists(), draft.exists()) == (False, True, False)


def test_lock_and_note_of_a_url_go_when_its_file_would_be_fetched_anew(cache: Path) -> None:
    names = ("urls/a.lock", "urls/a.json", "urls/b.lock", "urls/b.json")
    files = [kept(cache, name, hours) for name, hours in zip(names, (25, 25, 23, 23), strict=True)]
    assert quota(cache).trim() == 2
    assert [path.exists() for path in files] == [False, False, True, True]


def test_copies_of_weights_count_and_those_that_a_process_uses_are_never_deleted(cache: Path) -> None:
    copies = [
        kept(cache, f"{name}-bf16.safetensors", hours) for name, hours in (("a", 90), ("b", 5), ("c", 9))
    ]
    loras = [kept(cache, f"files/{name}.safetensors", hours) for name, hours in (("a", 1), ("b", 2))]
    in_use = hold(copies[0])
    assert quota(cache, max_cache_bytes=300).trim() == 2
    assert [path.exists() for path in (*copies, *loras)] == [True, False, False, True, True]
    assert quota(cache, max_cache_bytes=250).trim() == 1
    assert [path.exists() for path in (copies[0], *loras)] == [True, True, False]
    assert quota(cache, max_cache_bytes=50).trim() == 1
    assert copies[0].exists()
    os.close(in_use)
    # It was used until now.
    lora = kept(cache, "files/a.safetensors", 1)
    assert quota(cache, max_cache_bytes=150).trim() == 1
    assert (copies[0].exists(), lora.exists()) == (True, False)
    assert quota(cache, max_cache_bytes=50).trim() == 1
    assert not copies[0].exists()


@pytest.mark.parametrize("said", [b"", b"{}", b"[]", b'"x"', b'{"repo_id": "a/b", "path": 7}'])
def test_note_that_tells_nothing_goes_and_stops_no_trimming(cache: Path, said: bytes) -> None:
    (cache / "hub" / "a.file").write_bytes(said)
    files = [kept(cache, f"files/{number}.safetensors", number) for number in range(2)]
    assert quota(cache, max_cache_bytes=100).trim() == 1
    assert [path.exists() for path in files] == [True, False]
    assert not list((cache / "hub").iterdir())


def test_note_that_another_process_has_deleted_meanwhile_is_no_fault(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (cache / "hub" / f"{number}.file").write_text(json.dumps({"repo_id": "a/b", "path": None}))
        kept(cache, f"files/{number}.safetensors", number)
    read = Path.read_bytes

    def gone(path: Path) -> bytes:
        if path.suffix == ".file":
            path.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", gone)
    assert quota(cache, max_cache_bytes=500).trim() == 15


def test_many_that_trim_at_once_fail_nobody(cache: Path) -> None:
    for number in range(200):
        kept(cache, f"files/{number}.safetensors", number)
        kept(cache, f"images/{number}", number)
        (cache / "hub" / f"{number}.file").write_text(json.dumps({"repo_id": "a/b", "path": None}))
    faults: list[Exception] = []

    def trim() -> None:
        try:
            quota(cache, max_cache_bytes=500, max_image_cache_bytes=500).trim()
            quota(cache, max_image_cache_bytes=300).trim_images()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=trim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(list((cache / "files").iterdir())) == 5
    assert len(list((cache / "images").iterdir())) == 3


def test_cache_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert quota(tmp_path / "none" / "cache", max_cache_bytes=1).trim() == 0
