"""Pictures in a local folder."""

import os
import time
from pathlib import Path

import pytest

from worker.errors import StorageError
from worker.storage import FolderStorage, StoredFile, new_file_id


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "outputs")


def content(stored: StoredFile | None) -> bytes | None:
    if stored is None:
        return None
    with stored.file as file:
        return file.read()


def test_what_is_put_can_be_read(storage: FolderStorage) -> None:
    file_id = new_file_id()
    storage.put(file_id, "image.png", b"pixels")
    stored = storage.open(file_id, "image.png")
    assert stored is not None
    assert stored.size == 6
    assert abs(stored.modified_at - time.time()) < 60
    assert content(stored) == b"pixels"


def test_ids_have_128_random_bits() -> None:
    ids = {new_file_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(bytes.fromhex(file_id)) == 16 for file_id in ids)


@pytest.mark.parametrize(
    ("file_id", "name"),
    [
        ("0" * 32, "image.png"),
        ("../" * 8 + "etc/pass", "image.png"),
        ("0" * 31, "image.png"),
        ("A" * 32, "image.png"),
        ("0" * 32 + "\n", "image.png"),
        ("{id}", "other.png"),
        ("{id}", "../image.png"),
        ("{id}", "image.png\n"),
        ("{id}", ".png"),
        ("{id}", "image.svg"),
        ("{id}", "image.png.0123456789abcdef.part"),
        ("{id}", ""),
    ],
)
def test_nothing_else_is_found(storage: FolderStorage, file_id: str, name: str) -> None:
    known = new_file_id()
    storage.put(known, "image.png", b"pixels")
    assert storage.open(file_id.replace("{id}", known), name) is None


def test_name_that_is_none_of_ours_is_not_written(storage: FolderStorage) -> None:
    with pytest.raises(ValueError, match="not the id"):
        storage.put(new_file_id(), "../image.png", b"")


def test_failed_write_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("in the way")
    with pytest.raises(StorageError, match="could not be kept"):
        FolderStorage(tmp_path / "outputs").put(new_file_id(), "image.png", b"pixels")


def test_deleting_is_for_good_and_may_be_repeated(storage: FolderStorage, tmp_path: Path) -> None:
    file_id = new_file_id()
    storage.put(file_id, "image.png", b"pixels")
    storage.delete(file_id)
    storage.delete(file_id)
    storage.delete("../outputs")
    assert storage.open(file_id, "image.png") is None
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


def test_sweeping_takes_the_old_and_the_unfinished(storage: FolderStorage, tmp_path: Path) -> None:
    old, new = new_file_id(), new_file_id()
    for file_id in (old, new):
        storage.put(file_id, "image.png", b"pixels")
    path = storage.path(old, "image.png")
    assert path is not None
    orphan = path.with_name("image.png.0123456789abcdef.part")
    orphan.write_bytes(b"pix")
    for stale in (path, orphan):
        os.utime(stale, (0, 0))
    assert storage.sweep(max_age_seconds=86_400) == 2
    assert storage.open(old, "image.png") is None
    assert content(storage.open(new, "image.png")) == b"pixels"
    assert storage.sweep(max_age_seconds=86_400) == 0


def test_unfinished_file_of_a_dead_writer_goes_before_the_finished_ones(
    storage: FolderStorage, tmp_path: Path
) -> None:
    file_id = new_file_id()
    storage.put(file_id, "image.png", b"pixels")
    path = storage.path(file_id, "image.png")
    assert path is not None
    orphan = path.with_name("image.png.0123456789abcdef.part")
    orphan.write_bytes(b"pix")
    two_hours_ago = time.time() - 7200
    for each in (path, orphan):
        os.utime(each, (two_hours_ago, two_hours_ago))
    assert storage.sweep(max_age_seconds=86_400) == 1
    assert content(storage.open(file_id, "image.png")) == b"pixels"
