"""Pictures and their ids, in a local folder and in an S3-compatible store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.config import WorkerSettings
from worker.errors import StorageError
from worker.storage.backend import open_objects
from worker.storage.folder import FolderObjects
from worker.storage.objects import Objects, sweep
from worker.storage.pictures import FOLDER, Storage, file_key, new_file_id


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    settings = WorkerSettings(_env_file=None, data_dir=tmp_path)
    if request.param == "s3":
        bucket: str = request.getfixturevalue("bucket")
        settings = settings.model_copy(update={"storage": bucket})
    return open_objects(settings)


@pytest.fixture
def storage(objects: Objects) -> Storage:
    return Storage(objects)


def keys(objects: Objects) -> Iterator[str]:
    return (entry.key for entry in objects.list(FOLDER))


def test_what_is_put_can_be_read(storage: Storage) -> None:
    file_id = new_file_id()
    storage.put(file_id, "image.png", b"pixels")
    assert storage.read(file_id, "image.png") == b"pixels"


def test_put_again_takes_the_place_of_what_was_there(storage: Storage, objects: Objects) -> None:
    file_id = new_file_id()
    for data in (b"before", b"after"):
        storage.put(file_id, "image.png", data)
    assert storage.read(file_id, "image.png") == b"after"
    assert list(keys(objects)) == [file_key(file_id, "image.png")]


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
def test_nothing_else_is_found(storage: Storage, file_id: str, name: str) -> None:
    known = new_file_id()
    storage.put(known, "image.png", b"pixels")
    assert storage.read(file_id.replace("{id}", known), name) is None


def test_name_that_is_none_of_ours_is_not_written(storage: Storage) -> None:
    with pytest.raises(ValueError, match="not the id"):
        storage.put(new_file_id(), "../image.png", b"")


def test_failed_write_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("in the way")
    with pytest.raises(StorageError, match="could not be kept"):
        Storage(FolderObjects(tmp_path)).put(new_file_id(), "image.png", b"pixels")


def test_deleting_is_for_good_and_may_be_repeated(storage: Storage, objects: Objects) -> None:
    file_id, other = new_file_id(), new_file_id()
    for each in (file_id, other):
        storage.put(each, "image.png", b"pixels")
    storage.put(file_id, "control.png", b"pixels")
    storage.delete(file_id)
    storage.delete(file_id)
    storage.delete("../outputs")
    assert storage.read(file_id, "image.png") is None
    assert list(keys(objects)) == [file_key(other, "image.png")]


def test_sweeping_takes_the_old(storage: Storage, objects: Objects) -> None:
    file_id = new_file_id()
    storage.put(file_id, "image.png", b"pixels")
    assert sweep(objects, FOLDER, max_age_seconds=86_400) == 0
    assert storage.read(file_id, "image.png") == b"pixels"
    # An S3 store tells the time by the second, and its clock is its own.
    assert sweep(objects, FOLDER, max_age_seconds=-60) == 1
    assert storage.read(file_id, "image.png") is None
