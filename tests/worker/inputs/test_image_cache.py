"""Images that are kept: what the server says decides, each time."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.inputs.web import Answer, Handler, Web
from worker.config import WorkerSettings
from worker.counters import counted
from worker.errors import FetchError
from worker.inputs.disk_quota import DiskQuota
from worker.inputs.image_cache import ImageCache

BODY = bytes(range(256)) + b"\n" + bytes(700)


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


def images(folder: Path, **options: int) -> ImageCache:
    return ImageCache(
        WorkerSettings(
            _env_file=None, data_dir=folder, allow_hosts="127.0.0.1", max_image_bytes=2000, **options
        )
    )


def versioned(version: str, body: bytes) -> Answer:
    """A server that tells a version and knows it again."""

    def answer(call: Handler) -> None:
        if call.headers["If-None-Match"] == version:
            call.reply(status=304, Content_Length="")
        else:
            call.reply(body, ETag=version)

    return answer


def counts() -> tuple[int, int]:
    return counted().get("cache|image|hit", 0), counted().get("cache|image|miss", 0)


def test_unchanged_image_is_taken_from_the_disk(web: Web, tmp_path: Path) -> None:
    hits, misses = counts()
    url = web.on("/a.png", versioned('"1"', BODY))
    assert [images(tmp_path).get(url, "image_url") for _ in range(3)] == [BODY] * 3
    assert counts() == (hits + 2, misses + 1)
    assert [call.headers["If-None-Match"] for call in web.seen] == [None, '"1"', '"1"']


def test_image_told_by_its_date_alone_is_asked_for_by_it(web: Web, tmp_path: Path) -> None:
    date = "Sun, 22 Nov 2026 18:00:00 GMT"
    url = web.on(
        "/a.png",
        lambda call: (
            call.reply(status=304, Content_Length="")
            if call.headers["If-Modified-Since"] == date
            else call.reply(BODY, Last_Modified=date)
        ),
    )
    assert [images(tmp_path).get(url, "image_url") for _ in range(2)] == [BODY] * 2
    assert web.seen[1].headers["If-Modified-Since"] == date


def test_changed_image_is_the_new_one(web: Web, tmp_path: Path) -> None:
    url = web.on("/a.png", versioned('"1"', BODY))
    images(tmp_path).get(url, "image_url")
    web.on("/a.png", versioned('"2"', b"another"))
    assert [images(tmp_path).get(url, "image_url") for _ in range(2)] == [b"another"] * 2


def test_image_that_may_not_be_read_any_more_is_refused(web: Web, tmp_path: Path) -> None:
    url = web.on("/a.png", versioned('"1"', BODY))
    images(tmp_path).get(url, "image_url")
    web.on("/a.png", lambda call: call.reply(status=403))
    with pytest.raises(FetchError, match="answered 403"):
        images(tmp_path).get(url, "image_url")


@pytest.mark.parametrize("headers", [{}, {"ETag": '"1"', "Cache_Control": "private, no-store"}])
def test_what_has_no_version_or_may_not_be_stored_is_not_kept(
    headers: dict[str, str], web: Web, tmp_path: Path
) -> None:
    url = web.on("/a.png", lambda call: call.reply(BODY, **headers))
    assert [images(tmp_path).get(url, "image_url") for _ in range(2)] == [BODY] * 2
    assert not list(tmp_path.rglob("images/*"))


def test_longest_unused_images_go_when_the_disk_is_used_up(web: Web, tmp_path: Path) -> None:
    kept = images(tmp_path, max_image_cache_bytes=2200)
    urls = [web.on(f"/{name}", versioned(f'"{name}"', BODY)) for name in "abc"]
    for url in urls:
        kept.get(url, "image_url")
    assert len(list(tmp_path.rglob("images/*"))) == 2
    kept.get(urls[2], "image_url")
    assert web.seen[-1].headers["If-None-Match"] == '"c"'
    kept.get(urls[0], "image_url")
    assert web.seen[-1].headers["If-None-Match"] is None


def test_image_is_fetched_and_not_kept_below_the_floor_of_free_disk(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    url = web.on("/a.png", versioned('"1"', BODY))
    assert images(tmp_path).get(url, "image_url") == BODY
    assert not list(tmp_path.rglob("images/*"))


def test_image_goes_that_was_not_used_for_as_long_as_requests_are_kept(web: Web, tmp_path: Path) -> None:
    url = web.on("/a.png", versioned('"1"', BODY))
    images(tmp_path).get(url, "image_url")
    quota = DiskQuota(WorkerSettings(_env_file=None, data_dir=tmp_path))
    quota.trim()
    [path] = tmp_path.rglob("images/*")
    os.utime(path, (0, 0))
    quota.trim()
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json\nbody",
        b'["1"',
        b"7\nbody",
        b"[1, 2, 3]\nbody",
        b"[1, 2]\nbody",
        b'["\\"1\\"", "", "0"]\nhalf',
    ],
)
def test_damaged_file_is_fetched_anew(web: Web, tmp_path: Path, content: bytes) -> None:
    url = web.on("/a.png", versioned('"1"', BODY))
    images(tmp_path).get(url, "image_url")
    [path] = tmp_path.rglob("images/*")
    path.write_bytes(content)
    assert [images(tmp_path).get(url, "image_url") for _ in range(2)] == [BODY] * 2
    assert [call.headers["If-None-Match"] for call in web.seen] == [None, None, '"1"']


def test_image_larger_than_the_whole_cache_is_fetched_and_pushes_nothing_out(
    web: Web, tmp_path: Path
) -> None:
    small = web.on("/small.png", versioned('"1"', b"small"))
    large = web.on("/large.png", versioned('"2"', BODY))
    kept = images(tmp_path, max_image_cache_bytes=500)
    assert [kept.get(url, "image_url") for url in (small, large, large)] == [b"small", BODY, BODY]
    assert len(list(tmp_path.rglob("images/*"))) == 1
    kept.get(small, "image_url")
    assert web.seen[-1].headers["If-None-Match"] == '"1"'


def test_server_that_says_unchanged_unasked_is_refused(web: Web, tmp_path: Path) -> None:
    url = web.on("/a.png", lambda call: call.reply(status=304, Content_Length=""))
    with pytest.raises(FetchError, match="answered 304"):
        images(tmp_path).get(url, "image_url")
