"""The recorded reference numbers are met, and the benchmark says so truthfully."""

from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.golden import TOLERANCE, check_file, main

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_case_equals_the_reference(path: Path) -> None:
    errors = {case.name: case.error for case in check_file(path)}
    assert len(errors) == 6
    assert max(errors.values()) < TOLERANCE


def test_wrong_number_is_reported_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with safe_open(FILES[0], framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["step.1.output"] *= 1.001
    save_file(tensors, tmp_path / "bent.safetensors", metadata)
    assert main(tmp_path) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if "WRONG" in line]
    assert len(wrong) == 1
    assert "step.1" in wrong[0]


def test_empty_folder_fails(tmp_path: Path) -> None:
    assert main(tmp_path) == 1
