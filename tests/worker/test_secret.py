"""The secret of a server: nobody else's to read, the same for all its processes, and never too short."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.errors import SetupError
from worker.secret import SECRET_BYTES, Secret


def test_it_is_made_for_this_user_alone_and_stays(tmp_path: Path) -> None:
    derived = Secret(tmp_path / "data").derive("upload", "a")
    path = tmp_path / "data" / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == SECRET_BYTES
    assert [each.name for each in path.parent.iterdir()] == ["secret"]
    assert Secret(tmp_path / "data").derive("upload", "a") == derived


def test_processes_that_start_at_once_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        derived = set(threads.map(lambda _: Secret(tmp_path).derive("storage"), range(8)))
    assert len(derived) == 1


def test_no_two_lists_of_words_are_one(tmp_path: Path) -> None:
    secret = Secret(tmp_path)
    assert (
        len({secret.derive(*words) for words in [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", "")]}) == 4
    )


@pytest.mark.parametrize("size", [0, SECRET_BYTES - 1])
def test_what_is_too_short_is_refused(size: int, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * size)
    with pytest.raises(
        SetupError, match=f"secret has {size} bytes of at least 32. Put it back from a backup"
    ):
        Secret(tmp_path).derive("upload")
    assert (tmp_path / "secret").stat().st_size == size


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(SetupError, match="cannot be read or made: Is a directory"):
        Secret(tmp_path).derive("upload")
