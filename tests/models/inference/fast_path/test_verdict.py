"""What was found is taken where it is as exact and faster, and kept whole or not at all."""

from pathlib import Path
from typing import Any

import pytest

from models.inference.fast_path import verdict
from models.inference.fast_path.verdict import FILE, Verdict, read, write

EAGER = {"ms": 10.0, "error": 5e-3}
KEY = {"card": "a card", "torch": "2"}


@pytest.mark.parametrize(
    ("compiled", "path"),
    [
        ({"ms": 8.0, "error": 6e-3}, "compiled"),
        ({"ms": 8.0, "error": 9e-3}, "eager"),
        ({"ms": 8.0, "error": float("inf")}, "eager"),
        ({"ms": 9.9, "error": 5e-3}, "eager"),
        ({"fault": "no compiler"}, "eager"),
    ],
    ids=["faster", "not as exact", "not finite", "hardly faster", "faulty"],
)
def test_faster_path_is_taken_where_it_is_as_exact(compiled: dict[str, Any], path: str) -> None:
    found = Verdict.of({"eager": EAGER, "compiled": compiled}, None)
    assert found.path == path
    assert ("no compiler" in found.reason) == ("fault" in compiled)


def test_what_was_measured_before_a_trial_hung_counts() -> None:
    measured = {"eager": EAGER, "compiled": {"ms": 8.0, "error": 5e-3}}
    assert Verdict.of(measured, "it was ended after 300 s").path == "compiled"
    only = Verdict.of({"eager": EAGER}, "it was ended after 300 s")
    assert (only.path, "ended after 300 s" in only.reason) == ("eager", True)
    assert "ended with -9" in Verdict.of({}, "its process ended with -9").reason


def test_verdict_is_kept_by_its_key_and_the_newest_stay(tmp_path: Path) -> None:
    for number in range(verdict.KEPT + 1):
        write(tmp_path / "cache", KEY | {"torch": str(number)}, Verdict("compiled", "It is faster."))
    assert read(tmp_path / "cache", KEY | {"torch": "0"}) is None
    assert read(tmp_path / "cache", KEY | {"torch": "1"}) == Verdict("compiled", "It is faster.")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [FILE]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"card a card, torch 2": {"path": "of another version"}}']
)
def test_damaged_file_is_no_verdict_and_is_written_anew(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    assert read(tmp_path, KEY) is None
    write(tmp_path, KEY, Verdict("eager", "Nothing is faster."))
    assert read(tmp_path, KEY) == Verdict("eager", "Nothing is faster.")


def test_folder_that_cannot_be_written_costs_nothing_but_the_next_trial(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    write(tmp_path / "cache", KEY, Verdict("eager", "Nothing is faster."))
    assert read(tmp_path / "cache", KEY) is None
