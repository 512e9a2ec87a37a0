"""docs/models.md names tests, settings and benchmarks that exist, and the weights that `pull` brings."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.config import Settings
from models.weights.published import DETECTORS, Published

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_every_format_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| (?:transformer|text encoder|autoencoder|ControlNet) \|.*$", GUIDE, re.MULTILINE)
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) > 8
    assert all(named)
    written = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {name for names in named for name in names} <= written


def test_every_setting_named_is_one() -> None:
    named = {name.lower() for name in re.findall(r"ZTURBO_(\w+)", GUIDE)}
    assert len(named) > 8
    assert named <= set(Settings.model_fields)


def test_every_benchmark_named_is_one() -> None:
    named = re.findall(r"python -m (benchmarks\.\w+)", GUIDE)
    assert named
    assert all(find_spec(name) for name in named)


@pytest.mark.parametrize("row", DETECTORS, ids=lambda row: row.about)
def test_every_detector_is_listed_with_its_repository(row: Published) -> None:
    assert f"`{row.repo_id}`" in GUIDE
