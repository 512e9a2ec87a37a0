"""`zturbo pull` from a hub on loopback."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from app.cli import cli, weights
from app.cli.weights import MARKS
from models.config import DEFAULT_CONTROLNET, DEFAULT_MODEL, ModelSettings
from models.errors import ModelError
from models.weights.hub import cached_file
from models.weights.pull import plan
from tests.support.hub import HubStub

SHARD = os.urandom(100_000)


@pytest.fixture
def runner(hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    hub.add_repo(DEFAULT_MODEL, {"model_index.json": b"{}", "vae/diffusion_pytorch_model.safetensors": SHARD})
    hub.add_repo(DEFAULT_CONTROLNET, {"union.safetensors": b"union"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZTURBO_MODEL", "z-image-turbo")
    return CliRunner()


def test_pull_brings_what_is_missing_and_nothing_the_second_time(runner: CliRunner) -> None:
    first = runner.invoke(cli, ["pull", "model", "controlnet"])
    assert first.exit_code == 0, first.output
    assert "3 files to bring" in first.output
    assert plan(ModelSettings(), ["model", "controlnet"]).missing == ()
    second = runner.invoke(cli, ["pull", "model", "controlnet"])
    assert "All 3 files are here" in second.output


def test_machine_on_which_the_model_would_not_run_is_told_so_before_it_is_brought(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = ModelError("The model needs 15.8 GB.")
    monkeypatch.setattr(weights, "WARNED_BYTES", len(SHARD))
    monkeypatch.setattr(weights, "missing_packages", list)
    monkeypatch.setattr(weights, "check_published", Mock(side_effect=refusal))
    told = runner.invoke(cli, ["pull", "model", "controlnet"])
    assert told.stderr.splitlines()[0] == f"The real model would not run on this machine. {refusal}"
    # It may be for another one.
    assert told.exit_code == 0
    assert "would not run" not in runner.invoke(cli, ["pull", "model"]).output


def test_check_tells_what_is_missing_and_what_is_damaged(runner: CliRunner) -> None:
    runner.invoke(cli, ["pull", "model"])
    here = cached_file(DEFAULT_MODEL, "vae/diffusion_pytorch_model.safetensors")
    assert here is not None
    here.path.resolve().write_bytes(SHARD[:-1] + bytes([SHARD[-1] ^ 1]))
    checked = runner.invoke(cli, ["pull", "--check", "model", "controlnet"])
    assert checked.exit_code == 1
    lines = sorted(line.split()[0] for line in checked.output.splitlines() if line.startswith(tuple(MARKS)))
    assert lines[:3] == ["damaged", "missing", "ok"]
    assert runner.invoke(cli, ["pull", "model", "controlnet"]).exit_code == 0
    assert runner.invoke(cli, ["pull", "--check", "model", "controlnet"]).exit_code == 0


def test_what_the_hub_does_not_have_is_told_in_a_sentence(runner: CliRunner) -> None:
    done = runner.invoke(cli, ["pull", "nobody/nothing"])
    assert done.exit_code == 69
    assert "nobody/nothing" in done.output
    assert "Traceback" not in done.output
