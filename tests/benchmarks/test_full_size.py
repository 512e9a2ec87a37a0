"""The rehearsal at full size: what it writes is a model, at any size, and its limits hold."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from benchmarks import run
from benchmarks.full_size import check, weights
from benchmarks.full_size.limits import Watch, memory_group, memory_of
from models.config import ModelSettings
from models.errors import DiskFull
from models.inference.engine import Engine
from models.job import Job
from tests.support.processes import wait_for

SMALL_TEXT_ENCODER = {
    "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published depth, for which ControlNet-Union is, at a hundredth of its width."""
    transformer = {"dim": 64, "n_heads": 1, "n_kv_heads": 1, "cap_feat_dim": 64, "axes_dims": [16, 24, 24]}
    monkeypatch.setattr(weights, "PUBLISHED", weights.PUBLISHED | transformer)
    monkeypatch.setattr(weights, "TEXT_ENCODER", weights.TEXT_ENCODER | SMALL_TEXT_ENCODER)
    vae = {"block_out_channels": (8, 16, 32, 32), "norm_num_groups": 4, "layers_per_block": 1}
    monkeypatch.setattr(weights, "VAE", weights.VAE | vae)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("union", ["1.0", "2.1"])
def test_what_is_written_is_a_model_that_makes_a_picture(union: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    weights.write_all(tmp_path, union, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "loras"}
    branch = tmp_path / "loras" / weights.UNION
    settings = ModelSettings(
        data_dir=tmp_path / "data", model=str(tmp_path / "model"), controlnet=str(branch), device="cpu",
        _env_file=None,
    )  # fmt: skip
    job = Job(prompt="a fox", width=64, height=64, num_inference_steps=1)
    assert Engine.load(settings).generate(job, None, lambda step: None).images[0].shape == (64, 64, 3)
    with safe_open(tmp_path / "loras" / weights.STYLE, "pt") as style:
        assert len(style.keys()) == 30 * 7 * 2


@pytest.mark.usefixtures("small")
def test_only_what_is_missing_is_written_again(tmp_path: Path) -> None:
    weights.write_all(tmp_path, "1.0", lambda done, total: None)
    files = sorted(tmp_path.rglob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in files}
    files[0].unlink()
    weights.write_all(tmp_path, "1.0", lambda done, total: None)
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == files[:1]


def test_disk_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.disk._free_and_floor", lambda folder: (10**9, 10**8))
    with pytest.raises(DiskFull):
        weights.write_all(tmp_path, "1.0", lambda done, total: None)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_memory_of_its_own_is_told_from_a_file_s_pages(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(20_000_000))
    script = (
        "import mmap, sys; own = bytearray(50_000_000); file = open(sys.argv[1], 'rb');"
        "pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); sum(pages[::4096]);"
        "print('', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        memory = memory_of(process.pid)
        process.kill()
    assert 50_000_000 < memory.private < 70_000_000
    assert 20_000_000 < memory.mapped < 50_000_000


def test_process_that_has_ended_has_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_for(lambda: memory_of(process.pid) == (0, 0))


def test_process_beyond_the_limit_is_ended(tmp_path: Path) -> None:
    hungry = "own = bytearray(300_000_000)\nimport time; time.sleep(60)"
    script = (
        f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {hungry!r}]).returncode)"
    )
    with (
        subprocess.Popen([sys.executable, "-c", script]) as process,
        Watch(process.pid, 100_000_000) as watch,
    ):
        assert process.wait(30) != 0
    assert watch.killed
    assert watch.peak(0, time.time()).private > 100_000_000


def test_group_that_is_made_holds_a_process_and_goes_away() -> None:
    with memory_group(200_000_000) as group:
        if group is None:
            pytest.skip("no control group may be made here")
        script = "import sys; sys.stdin.readline(); own = bytearray(400_000_000); print(len(own))"
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
            group.write_text(str(process.pid))
            process.communicate(b"\n")
        assert process.returncode != 0
    assert not group.parent.exists()


@pytest.mark.usefixtures("small")
def test_file_by_the_authors_names_holds_what_ours_hold(tmp_path: Path) -> None:
    weights.write_all(tmp_path, "1.0", lambda done, total: None)
    weights.write_files(tmp_path / "one", weights.files_by_authors_names(), lambda done, total: None)
    for path, folder in (("transformer", "transformer"), ("text_encoder", "text_encoder")):
        ours = sum(path.stat().st_size for path in (tmp_path / "model" / folder).glob("*.safetensors"))
        theirs = (tmp_path / "one" / f"{path}.safetensors").stat().st_size
        # Their headers differ, and each file's is small beside what it holds.
        assert theirs == pytest.approx(ours, rel=0.05)
    settings = ModelSettings(
        data_dir=tmp_path / "data", model=str(tmp_path / "model"), device="cpu", _env_file=None,
        transformer=str(tmp_path / "one" / "transformer.safetensors"),
    )  # fmt: skip
    job = Job(prompt="a fox", width=64, height=64, num_inference_steps=1)
    assert Engine.load(settings).generate(job, None, lambda step: None).images[0].shape == (64, 64, 3)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    return tmp_path


def adding(file: Path, row: dict[str, Any], status: int = 0) -> tuple[str, ...]:
    """Arguments of a Python module that adds the row and ends with the status."""
    (file.parent / "a_part.py").write_text(
        f"import sys; open({str(file)!r}, 'a').write({json.dumps(row)!r} + chr(10)); sys.exit({status})"
    )
    return ("a_part",)


@pytest.mark.parametrize(
    ("ratio", "status", "expected"), [(0.4, 0, 0), (0.6, 0, 1), (0.4, 3, 1)], ids=["met", "missed", "broken"]
)
def test_check_tells_a_missed_bound_and_a_broken_part(
    ratio: float, status: int, expected: int, results: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(results))
    row = {"side": 256, "bfloat16 to diffusers": 0.8, "int8 to diffusers": ratio}
    # Of an earlier run: it is not looked at.
    (results / "steps.jsonl").write_text(json.dumps(row | {"int8 to diffusers": 9}) + "\n")
    arguments = adding(results / "steps.jsonl", row, status)
    parts = {"steps": replace(check.PARTS["steps"], arguments=arguments), "sdcpp": check.PARTS["sdcpp"]}
    monkeypatch.setattr(check, "PARTS", parts)
    assert check.check(results, parts, peers=None) == expected
    told = capfd.readouterr().out
    assert "sdcpp: left out" in told
    assert ("MISSED" in told) == bool(expected)


def test_bounds_of_a_request_are_of_its_own_memory_and_its_pages() -> None:
    row = {
        "dtype": "int8", "memory_limit": 16 * 2**30, "picture_s": 100.0, "timings": {"loras": 6.0},
        "start_peak": {"private_gb": 3.0, "mapped_gb": 1.0},
        "picture_peak": {"private_gb": 1.0, "mapped_gb": 8.0},
    }  # fmt: skip
    told = {bound.name: (bound.value, bound.met) for bound in check.PARTS["int8"].bounds(row)}
    assert told == {
        "int8, limit of 16 GiB: GB in all": (11.0, True),
        "int8, limit of 16 GiB: LoRA set, of the picture": (0.06, False),
    }
