"""What is kept free on a disk."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from models.disk import check_room, spare_bytes
from models.errors import DiskFull


class Disk(NamedTuple):
    total: int
    free: int


@pytest.mark.parametrize(
    ("total", "free", "spare"),
    [
        (10 * 10**9, 3 * 10**9, 2 * 10**9),
        (10 * 10**9, 10**8, -9 * 10**8),
        (10**12, 30 * 10**9, 10 * 10**9),
    ],
    ids=["1 GB of a small disk", "below the floor", "2 % of a large one"],
)
def test_floor_is_the_larger_of_a_gigabyte_and_two_percent(
    total: int, free: int, spare: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(total, free))
    assert spare_bytes(tmp_path) == spare
    if spare > 0:
        check_room(tmp_path, spare)
    with pytest.raises(DiskFull, match=f"has {free / 1e9:.1f} GB free"):
        check_room(tmp_path, max(spare, 0) + 1)


def test_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_folders_above(tmp_path: Path) -> None:
    assert spare_bytes(tmp_path / "not" / "yet") == pytest.approx(spare_bytes(tmp_path), abs=10**9)
