"""What a local folder does that a store elsewhere does not: half files, empty folders, a disk of its own."""

import os
import time
from pathlib import Path

import pytest

from worker.storage.folder import FolderObjects
from worker.storage.objects import sweep

HOURS = 3600.0


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path)


@pytest.mark.parametrize(("age", "left"), [(0.5 * HOURS, 2), (2 * HOURS, 1), (48 * HOURS, 0)])
def test_half_file_of_a_dead_writer_goes_before_the_whole_ones(
    objects: FolderObjects, tmp_path: Path, age: float, left: int
) -> None:
    objects.put("outputs/a/image.png", b"pixels")
    orphan = tmp_path / "outputs/a/image.png.0123456789abcdef.part"
    orphan.write_bytes(b"pix")
    for path in (orphan, orphan.with_name("image.png")):
        os.utime(path, (time.time() - age, time.time() - age))
    assert sweep(objects, "outputs", 24 * HOURS) == 2 - left
    assert len(list(objects.list("outputs"))) == left


def test_no_empty_folder_is_left(objects: FolderObjects, tmp_path: Path) -> None:
    objects.put("work/a/1", b"one")
    objects.put("work/a/2", b"two")
    objects.delete(["work/a/1"])
    assert objects.get("work/a/2") == b"two"
    objects.delete(["work/a/2", "work/a/2", "work/b/1"])
    assert list((tmp_path / "work").iterdir()) == []


def test_folder_that_is_not_there_is_empty(objects: FolderObjects) -> None:
    assert list(objects.list("outputs")) == []
    assert objects.get("outputs/a/image.png") is None
