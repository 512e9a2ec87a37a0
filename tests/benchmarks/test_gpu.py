"""The script for GPUs runs through on a CPU in small, and its arithmetic is that of the published counts."""

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.arithmetic import step_flops
from models.inference.control.controlnet import KNOWN, Layout

CONFIG = {"dim": 3840, "n_layers": 30, "n_refiner_layers": 2}
UNIONS = {layout.variant: layout for layout in KNOWN}


@pytest.mark.parametrize(
    ("control", "teraflops"),
    # Counted on the meta device by torch's FlopCounterMode, the caption's refiner (0.1) included.
    [(None, 56.57), (UNIONS["1.0"], 56.57 + 14.90), (UNIONS["2.1"], 56.57 + 32.30)],
)
def test_operations_are_those_that_were_counted(control: Layout | None, teraflops: float) -> None:
    assert step_flops(CONFIG, 4096, 128, control) / 1e12 == pytest.approx(teraflops, rel=0.003)


@pytest.mark.parametrize("call", range(1, 9))
def test_call_without_a_gpu_says_so_in_a_sentence(
    call: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (Path(run.__file__).parent / "gpu" / "calls.sh").read_text()
    (line,) = re.findall(rf"^  {call}\) set -- (.*) ;;$", script, re.MULTILINE)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        main(shlex.split(line))
    assert "error: no GPU is to be seen from here" in capsys.readouterr().err


def test_script_runs_through_in_small_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    small = ["--tiny", "--device", "cpu", "--runs", "1"]
    chosen = ["--sizes", "64", "--captions", "40", "120", "--variants", "plain"]
    assert main([*small, *chosen, "--parts", "check", "ours", "batch", "loras", "diffusers"]) == 0
    assert main([*small, "--tier", "16"]) == 0
    assert main([*small, "--tier", "16", "--quantization", "int8"]) == 0
    written = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    parts = [row["part"] for row in written]
    assert parts == ["check", *["ours"] * 10, *["batch"] * 3, "loras", *["diffusers"] * 2, "tier", "tier"]
    assert (tmp_path / "out" / "gpu.jsonl").read_text() == (tmp_path / "gpu.jsonl").read_text()
    ours = [row for row in written if row["part"] == "ours"]
    assert {row["size"] for row in ours} == {64}
    assert [min(row["caption"] for row in ours), max(row["caption"] for row in ours)] == [40, 120]
    assert {row["forwards"] for row in ours} == {8}
    assert {row["controlled"] for row in ours} == {0, 3, 8}
    assert {row["device"] for row in written} == {"cpu"}
