"""The script for GPUs runs through on a CPU in small, and its arithmetic is that of the published counts."""

import ast
import json
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import run
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.arithmetic import step_flops
from benchmarks.gpu.measure import peak_memory, timed
from models.inference.control.controlnet import KNOWN, Layout
from models.inference.device.loaded_model import LoadedModel
from tests.test_architecture import imported_in

CONFIG = {"dim": 3840, "n_layers": 30, "n_refiner_layers": 2}
UNIONS = {layout.variant: layout for layout in KNOWN}
ROOT = Path(run.__file__).parents[1]
CALLS = (ROOT / "benchmarks" / "gpu" / "calls.sh").read_text()


@pytest.mark.parametrize(
    ("control", "teraflops"),
    # Counted on the meta device by torch's FlopCounterMode, the caption's refiner (0.1) included.
    [(None, 56.57), (UNIONS["1.0"], 56.57 + 14.90), (UNIONS["2.1"], 56.57 + 32.30)],
)
def test_operations_are_those_that_were_counted(control: Layout | None, teraflops: float) -> None:
    assert step_flops(CONFIG, 4096, 128, control) / 1e12 == pytest.approx(teraflops, rel=0.003)


@pytest.mark.parametrize("call", range(1, 13))
def test_call_without_a_gpu_says_so_in_a_sentence(
    call: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (lines,) = re.findall(rf"^  {call}\)(.*?) ;;$", CALLS, re.MULTILINE | re.DOTALL)
    _, _, line = lines.partition("set -- ")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        main(shlex.split(line))
    assert "error: no GPU is to be seen from here" in capsys.readouterr().err


def required(packages: set[str], but: set[str]) -> set[str]:
    """These packages, and what they require on a GPU's machine, though not by way of `but`."""
    found: set[str] = set()
    left = list(packages)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue
        machine = {"extra": "", "python_version": "3.12", "python_full_version": "3.12.9"}
        wanted = {canonicalize_name(r.name) for r in lines if not r.marker or r.marker.evaluate(machine)}
        left += wanted - but
    return found


def imported(path: Path, known: set[Path]) -> set[str]:
    """The top-level packages, not the standard library's, that a file imports, and the files that it does."""
    packages: set[str] = set()
    known.add(path)
    for name in imported_in(ast.parse(path.read_text()), at_load=True):
        places = [ROOT / name.replace(".", "/"), (ROOT / name.replace(".", "/")).parent]
        files = [each for place in places if (each := place.with_suffix(".py")).exists()]
        for each in files:
            if each not in known:
                packages |= imported(each, known)
        if not files and not (ROOT / name.partition(".")[0]).is_dir():
            packages.add(name.partition(".")[0])
    return packages - sys.stdlib_module_names


def test_packages_for_a_gpu_machine_are_all_that_is_imported_and_may_not_be_there() -> None:
    named = set("".join(re.findall(r"^names\+?='(.*)'$", CALLS, re.MULTILINE)).split("|"))
    assert named <= set(
        re.findall(r"^([\w-]+)==", (ROOT / "requirements/worker.txt").read_text(), re.MULTILINE)
    )
    there = required({"torch", "transformers", "accelerate"}, but=named)
    assert required(named, but=set()) <= named | there
    modules = imported(ROOT / "benchmarks/gpu/__main__.py", set())
    assert {"cv2", "torch", "pydantic"} <= modules
    providers = packages_distributions()
    assert {canonicalize_name(providers[module][0]) for module in modules} <= named | there


def test_script_runs_through_in_small_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    # Asked for, and left again, as where a captured step fails.
    monkeypatch.setattr(LoadedModel, "use", lambda *_: None)
    small = ["--tiny", "--device", "cpu", "--runs", "1", "--path", "compiled with graphs"]
    chosen = ["--sizes", "64", "--captions", "40", "120", "--variants", "plain"]
    probes = ["profile", "rates"]
    assert main([*small, *chosen, "--parts", *probes, "check", "ours", "batch", "loras", "diffusers"]) == 0
    assert main([*small, "--tier", "16"]) == 0
    for eight_bits in ("int8", "fp8"):
        assert main([*small, "--tier", "16", "--quantization", eight_bits]) == 0
    written = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    profiles, written = written[:2], written[2:]
    assert {row["part"] for row in profiles} == {"profile"}
    assert all(row["kernels"] > 100 and row["first s"] > 0 and row["of them"] for row in profiles)
    rates = [row for row in written if row["part"] == "rates"]
    assert {row["of"] for row in rates} == {
        *("clocks at rest", "clocks under load", "product", "attention", "copies"),
    }
    products = [row for row in rates if row["of"] == "product"]
    assert all(row["float32 TF/s"] > 0 and row["int8 TF/s"] > 0 for row in products)
    assert any("ms" in row for row in rates if row["of"] == "attention")
    written = [row for row in written if row["part"] != "rates"]
    parts = [row["part"] for row in written]
    assert parts == ["check", *["ours"] * 10, *["batch"] * 3, "loras", *["diffusers"] * 2, *["tier"] * 3]
    assert [row["weights"] for row in written[-3:]] == ["off", "int8", "fp8"]
    assert (tmp_path / "out" / "gpu.jsonl").read_text() == (tmp_path / "gpu.jsonl").read_text()
    ours = [row for row in written if row["part"] == "ours"]
    assert {row["size"] for row in ours} == {64}
    assert [min(row["caption"] for row in ours), max(row["caption"] for row in ours)] == [40, 120]
    assert {row["forwards"] for row in ours} == {8}
    assert {row["controlled"] for row in ours} == {0, 3, 8}
    assert {row["device"] for row in written} == {"cpu"}
    # diffusers' rows have its variants instead.
    assert {(row["part"] == "diffusers", row.get("path")) for row in written} == {
        (False, "eager"),
        (True, None),
    }


def test_device_that_is_measured_is_the_one_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: asked.append(device) or 0)
    with peak_memory({}, "cuda:1"):
        timed(lambda: None, 1, "cuda:1")
    assert asked == ["cuda:1"] * 5
