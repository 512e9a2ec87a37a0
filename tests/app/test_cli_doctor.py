"""`zturbo doctor` tells what there is, and no secret."""

import re
import shutil
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from app.cli import cli
from app.cli.doctor import MARKS
from app.config import Settings
from models.command import zturbo
from models.inference.fast_path.verdict import Verdict, write
from models.weights.demo import FOLDER
from tests.support.s3_server import S3Server


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZTURBO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ZTURBO_MODEL", "demo")
    return CliRunner()


def row_of(output: str, name: str) -> list[str]:
    (row,) = (line.split() for line in output.splitlines() if line.split()[:1] == [name])
    return row


def test_every_setting_is_listed_by_all(runner: CliRunner) -> None:
    output = runner.invoke(cli, ["doctor", "--all"]).output
    assert all(row_of(output, f"ZTURBO_{name.upper()}") for name in Settings.model_fields)


def test_each_setting_says_where_it_comes_from(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ZTURBO_MAX_QUEUE=7\nZTURBO_MODEL=z-image-turbo\n")
    output = runner.invoke(cli, ["doctor"]).output
    assert row_of(output, "ZTURBO_MAX_QUEUE") == ["ZTURBO_MAX_QUEUE", "7", ".env"]
    assert row_of(output, "ZTURBO_MODEL") == ["ZTURBO_MODEL", "demo", "environment"]
    assert "ZTURBO_PORT" not in output
    output = runner.invoke(cli, ["doctor", "--all"]).output
    assert row_of(output, "ZTURBO_PORT") == ["ZTURBO_PORT", "8000", "default"]


def test_secrets_are_masked(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZTURBO_API_KEYS", "me:hunter2")
    monkeypatch.setenv("ZTURBO_REDIS_URL", "redis://:hunter2@127.0.0.1:9/0")
    monkeypatch.setenv("ZTURBO_PROMPT_LLM_KEY", "hunter2")
    output = runner.invoke(cli, ["doctor"]).output
    assert "hunter2" not in output
    assert row_of(output, "ZTURBO_API_KEYS")[1] == "********"


def test_what_is_missing_ends_it_with_a_status_and_a_way_out(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    done = runner.invoke(cli, ["doctor", "--model", "z-image-turbo"])
    assert done.exit_code == 78
    assert f"      → {zturbo()} pull" in done.output.splitlines()
    assert done.output.splitlines()[:2][1].startswith("  ✗")


def test_disk_below_the_floor_is_missing(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    done = runner.invoke(cli, ["doctor"])
    assert done.exit_code == 78
    assert "too little to take or fetch anything" in done.output


def test_machine_with_all_it_needs_is_well(runner: CliRunner) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    done = runner.invoke(cli, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "The model is the small demo model" in done.output
    assert done.output.splitlines()[-1] == f"Everything that `{zturbo()} serve` needs is here."


def test_findings_are_sentences(runner: CliRunner, tmp_path: Path) -> None:
    write(tmp_path / "data" / "cache", {}, Verdict("compiled", "It takes 0.80 of the time."))
    marks = {mark for mark, _ in MARKS.values()}
    found = [line for line in runner.invoke(cli, ["doctor"]).output.splitlines() if line[2:3] in marks]
    assert any("it runs compiled: It takes 0.80 of the time." in line for line in found)
    assert [line for line in found if not re.fullmatch(r"  . [A-Z`].*\.", line)] == []


def test_store_of_pictures_is_tried(runner: CliRunner, s3_server: S3Server, bucket: str) -> None:
    assert f"Pictures go to {bucket}" in runner.invoke(cli, ["doctor"], env={"ZTURBO_STORAGE": bucket}).output
    s3_server.faults(status=403)
    done = runner.invoke(cli, ["doctor"], env={"ZTURBO_STORAGE": bucket})
    assert "(ZTURBO_STORAGE) answers 403" in done.output
    assert done.exit_code == 78


def test_redis_that_may_lose_what_it_answered_is_named(runner: CliRunner, redis_url: str) -> None:
    def output() -> str:
        return runner.invoke(cli, ["doctor"], env={"ZTURBO_REDIS_URL": redis_url}).output

    with redis.Redis.from_url(redis_url) as client:
        try:
            assert "appendfsync always" in output()
            client.config_set("appendfsync", "always")
            assert "appendfsync" not in output().lower().replace("zturbo_appendfsync", "")
        finally:
            client.config_set("appendfsync", "everysec")


def test_driver_that_is_too_old_is_missing(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gpus.old_drivers", lambda: ["575.57.08"])
    done = runner.invoke(cli, ["doctor"])
    assert done.exit_code == 78
    assert "driver here is 575.57.08" in done.output
    assert "needs 580 or newer" in done.output


def test_card_that_pytorch_has_no_kernels_for_is_told(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="this installation makes no pictures")
    monkeypatch.setattr("models.gpus.describe_gpus", lambda: ["Tesla V100, 16 GB, 580.1"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    done = runner.invoke(cli, ["doctor"])
    assert done.exit_code == 78
    assert "no kernels here for Tesla V100" in done.output
    assert "set ZTURBO_DEVICE=cpu." in done.output


def test_machine_without_weights_is_told_what_the_real_model_would_take(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("ZTURBO_MODEL", "auto")
    monkeypatch.setenv("ZTURBO_DEVICE", "cpu")
    monkeypatch.setattr("models.inference.device.loaded_model.free_bytes", lambda device: 24 * 2**30)
    output = runner.invoke(cli, ["doctor"]).output
    assert "The real model would run here in " in output
    assert "an estimate for an otherwise idle machine." in output
    monkeypatch.setattr("models.inference.device.loaded_model.free_bytes", lambda device: 2**30)
    output = runner.invoke(cli, ["doctor"]).output
    assert "use ZTURBO_MODEL=demo, which needs next to none" in output


def test_mac_that_is_too_small_is_told_so_before_33_gb_are_fetched(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="this installation makes no pictures")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("models.gpus.gpu_present", lambda: True)
    monkeypatch.setattr("models.inference.forecast.find_device", lambda wanted: "mps")
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 11_453_251_584)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 0)
    monkeypatch.setattr("models.inference.device.loaded_model.host_free_bytes", lambda: 11 * 10**9)
    monkeypatch.setattr("models.inference.loading.copies.spare_bytes", lambda folder: 50 * 10**9)
    for model, status in (("z-image-turbo", 78), ("auto", 0)):
        done = runner.invoke(cli, ["doctor", "--model", model])
        assert "of memory on mps in int8, and 11.5 GB are free: set ZTURBO_DEVICE=cpu" in done.output
        assert f"{zturbo()} pull" not in done.output
        assert done.exit_code == status


def test_gpu_without_weights_is_told_what_they_would_do_and_the_disk_that_all_takes(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("models.inference.forecast.find_device", lambda wanted: "cpu")
    monkeypatch.setattr("models.inference.device.loaded_model.free_bytes", lambda device: 14 * 2**30)
    monkeypatch.setattr("models.inference.loading.copies.spare_bytes", lambda folder: 50 * 10**9)
    monkeypatch.setattr("app.cli.doctor.spare_bytes", lambda folder: 10**9)
    output = runner.invoke(cli, ["doctor", "--model", "z-image-turbo"]).output
    assert "The real model would run here in int8 " in output
    assert f"      → {zturbo()} pull" in output.splitlines()
    free = shutil.disk_usage(tmp_path).free
    for name, needed in (("hub cache", 37 * 10**9), ("data folder", 135 * 10**8)):
        (wanted,) = re.findall(rf"The {name} .* where (\d+) GB are wanted", output)
        # What is free but not spare is kept free.
        assert int(wanted) == pytest.approx((free + needed) / 1e9 - 1, abs=1.5)


@pytest.mark.parametrize("content", [None, b"no safetensors"])
def test_file_of_ones_own_that_is_bad_or_missing_is_not_to_be_pulled(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    file = tmp_path / "mine.safetensors"
    if content:
        file.write_bytes(content)
    monkeypatch.setenv("ZTURBO_TRANSFORMER", str(file))
    done = runner.invoke(cli, ["doctor", "--model", str(FOLDER)])
    assert done.exit_code == 78
    assert "mine.safetensors" in done.output
    assert f"{zturbo()} pull" not in done.output
