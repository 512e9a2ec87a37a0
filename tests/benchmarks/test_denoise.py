"""The comparison with diffusers compares equal work, and tells what it measured."""

import json
from pathlib import Path

import pytest

from benchmarks import denoise, run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(denoise, "SIZE", 64)
    config = {"dim": 64, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [8, 12, 12], "cap_feat_dim": 32}
    monkeypatch.setattr(denoise, "CONFIG", denoise.CONFIG | config)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    return tmp_path


def test_equal_work_gives_equal_latents_and_one_row(small: Path) -> None:
    assert denoise.main(["--rounds", "1"]) == 0
    row = json.loads((small / "denoise.jsonl").read_text())
    assert row["ours, all steps, error"] < denoise.TOLERANCE
    assert {"diffusers, seconds", "ours, all steps, ratio", "ours, 0 to 0.4, ratio"} <= row.keys()


def test_check_fails_on_a_ratio_above_its_bound(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "BOUNDS", {"ours, all steps": 0.0})
    assert denoise.main(["--rounds", "1", "--check"]) == 1
