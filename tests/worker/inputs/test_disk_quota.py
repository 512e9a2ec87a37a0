"""The disk that fetched LoRAs may take."""

import os
import time
from pathlib import Path

import pytest

from worker.inputs.disk_quota import trim


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "urls").mkdir()
    return tmp_path


def kept(cache: Path, name: str, hours: float, size: int = 100) -> Path:
    """A file that was used so many hours ago."""
    path = cache / name
    path.write_bytes(bytes(size))
    at = time.time() - hours * 3600
    os.utime(path, (at, at))
    return path


def test_longest_unused_goes_first(cache: Path) -> None:
    files = [kept(cache, f"files/{hours}.safetensors", hours) for hours in (2, 3, 4, 5)]
    assert trim(cache, max_bytes=250) == 2
    assert [path.exists() for path in files] == [True, True, False, False]
    assert trim(cache, max_bytes=250) == 0


def test_what_a_waiting_request_may_need_is_kept_over_the_quota(cache: Path) -> None:
    files = [kept(cache, f"files/{number}.safetensors", 0.5) for number in range(3)]
    assert trim(cache, max_bytes=1) == 0
    assert all(path.exists() for path in files)


def test_download_that_was_cut_off_goes_and_one_that_runs_stays(cache: Path) -> None:
    dead, live = kept(cache, "urls/a.part", 2), kept(cache, "urls/b.part", 0)
    assert trim(cache, max_bytes=10_000) == 1
    assert (dead.exists(), live.exists()) == (False, True)


def test_cache_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert trim(tmp_path / "none", max_bytes=1) == 0
