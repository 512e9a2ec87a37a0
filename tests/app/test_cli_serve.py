"""What `zturbo serve` starts and with which settings; the processes themselves are in tests/e2e."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from app.cli import cli, programs, serve
from app.cli.exits import Exit
from app.config import Settings
from app.health import own_url
from models.command import install
from models.errors import ModelError, WeightsMissing
from worker.host.supervisor import Program


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, port=0, device="auto")


@pytest.fixture
def listener(settings: Settings) -> Iterator[socket.socket]:
    with serve.listen(settings) as listener:
        yield listener


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def started(settings: Settings, listener: socket.socket) -> dict[str, Program]:
    return {each.name: each for each in programs.programs(settings, "demo", "unix:///r.sock", listener)}


def test_machine_without_a_gpu_gets_one_worker_for_its_cpu(
    settings: Settings, listener: socket.socket
) -> None:
    assert list(started(settings, listener)) == ["api", "io-1", "io-2", "io-3", "io-4", "gpu"]


def test_machine_that_joins_another_runs_workers_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    found = programs.programs(settings, "demo", "redis://box:6379/0", None)
    assert [each.name for each in found] == ["io-1", "io-2", "io-3", "io-4", "gpu-0", "gpu-1"]
    assert found[0].env["ZTURBO_REDIS_URL"] == "redis://box:6379/0"


def test_every_gpu_gets_a_worker_that_sees_it_alone(
    settings: Settings, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7")
    programs = started(settings, listener)
    assert programs["gpu-0"].env["CUDA_VISIBLE_DEVICES"] == "2"
    assert programs["gpu-1"].env["CUDA_VISIBLE_DEVICES"] == "GPU-7"
    assert "gpu" not in programs


def test_device_that_is_named_gets_one_worker(
    settings: Settings, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    named = settings.model_copy(update={"device": "cuda:1"})
    assert [name for name in started(named, listener) if name.startswith("gpu")] == ["gpu"]


def test_children_get_what_was_decided_and_not_what_it_was_decided_from(
    settings: Settings, listener: socket.socket
) -> None:
    env = dict(started(settings, listener)["gpu"].env)
    read = subprocess.run(
        [sys.executable, "-c", "from app.config import Settings; print(Settings().model_dump_json())"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    child = json.loads(read.stdout)
    assert child["model"] == "demo"
    assert child["redis_url"] == "unix:///r.sock"
    assert child["data_dir"] == str(settings.data_dir)
    assert child["port"] == listener.getsockname()[1]


def test_workers_have_longer_to_stop_than_they_take_to_drain(
    settings: Settings, listener: socket.socket
) -> None:
    assert started(settings, listener)["gpu"].stop_seconds > settings.drain_seconds


def test_a_folder_that_is_no_model_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"model_index\.json"):
        programs.choose_model(settings.model_copy(update={"model": str(tmp_path)}))


@pytest.mark.parametrize(("has_gpu", "device"), [(False, "auto"), (True, "cpu")])
def test_weights_that_are_missing_are_not_fetched_for_a_cpu(
    has_gpu: bool, device: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("models.gpus.gpu_present", lambda: has_gpu)
    with pytest.raises(WeightsMissing, match="zturbo pull"):
        programs.choose_model(settings.model_copy(update={"model": "z-image-turbo", "device": device}))


@pytest.mark.parametrize(
    ("gpu", "large_bytes", "is_said"), [(False, 10, True), (False, 11, False), (True, 10, False)]
)
def test_large_model_without_a_gpu_is_said_to_take_minutes(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    gpu: bool,
    large_bytes: int,
    is_said: bool,
) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "weights.safetensors").write_bytes(bytes(11))
    monkeypatch.setattr(programs, "LARGE_BYTES", large_bytes)
    monkeypatch.setattr("models.gpus.gpu_present", lambda: gpu)
    monkeypatch.setattr("models.weights.resolve.resolve_model", lambda settings: tmp_path)
    chosen = settings.model_copy(update={"model": "z-image-turbo"})
    assert programs.choose_model(chosen) == "z-image-turbo"
    said = capsys.readouterr().out
    assert f"model: z-image-turbo (as asked), {tmp_path}" in said
    assert ("There is no GPU, so a picture takes minutes" in said) == is_said


def test_weights_that_are_missing_are_fetched_for_a_gpu(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brought = []
    answers = iter([WeightsMissing("The weights are not on this machine."), tmp_path])

    def resolve(_: Settings) -> Path:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("models.gpus.gpu_present", lambda: True)
    monkeypatch.setattr("models.weights.resolve.resolve_model", resolve)
    monkeypatch.setattr("app.cli.weights.bring_missing", lambda settings: brought.append(settings.model))
    monkeypatch.setattr(programs, "check_published", lambda settings: None)
    assert programs.choose_model(settings) == "z-image-turbo"
    assert brought == ["z-image-turbo"]
    assert "fetched now" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [("serve",), ("worker", "all"), ("worker", "gpu"), ("generate", "--prompt", "x"), ("doctor",)],
)
def test_installation_without_torch_is_told_what_adds_it(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    where = {"ZTURBO_DATA_DIR": str(tmp_path / "data"), "ZTURBO_MODEL": "demo"}
    ran = CliRunner(env=where).invoke(cli, arguments)
    assert (ran.exit_code, (tmp_path / "data" / "redis").exists()) == (Exit.CONFIG, False)
    assert "lacks torch" in ran.output
    assert "so it makes no pictures" in ran.output
    assert install("gpu") in ran.output


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
@pytest.mark.parametrize("arguments", [("serve",), ("worker", "all")])
def test_gpu_that_is_not_here_is_refused_at_once(
    arguments: tuple[str, ...], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.gpus.gpu_present", lambda: device == "cuda:1")
    monkeypatch.setattr("models.gpus.visible_gpus", lambda: ["0"])
    monkeypatch.setattr("app.cli.machine.GPU_PACKAGES", ())
    ran = CliRunner(env={"ZTURBO_DATA_DIR": str(tmp_path), "ZTURBO_DEVICE": device}).invoke(cli, arguments)
    assert ran.exit_code == Exit.CONFIG
    assert ran.stderr == f"--device: this machine has no GPU for {device}; try --device cpu.\n"


def test_nothing_is_fetched_for_a_machine_on_which_it_would_not_run(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("models.gpus.gpu_present", lambda: True)
    monkeypatch.setattr("app.cli.weights.bring_missing", lambda settings: pytest.fail("it is fetched"))
    # What PyTorch sees here multiplies no fp8.
    unfit = settings.model_copy(update={"quantization": "fp8"})
    with pytest.raises(ModelError, match="ZTURBO_QUANTIZATION=fp8 needs a GPU"):
        programs.choose_model(unfit.model_copy(update={"model": "z-image-turbo"}))
    # Found out already, so that one process is enough here.
    refusal = ModelError("It needs 15.8 GB.")
    monkeypatch.setattr(programs, "check_published", Mock(side_effect=refusal))
    assert programs.choose_model(unfit) == "demo"
    assert "model: demo" in (said := capsys.readouterr().out)
    assert "would not run here. It needs 15.8 GB." in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "localhost"])  # noqa: S104
def test_url_that_is_told_can_be_opened(host: str, settings: Settings) -> None:
    with serve.listen(settings.model_copy(update={"host": host})) as listener:
        url = own_url(*listener.getsockname()[:2], tls=settings.tls_cert is not None)
        assert url.startswith(("http://127.0.0.1:", "http://[::1]:"))
        with socket.create_connection(listener.getsockname()[:2], timeout=5):
            pass


def test_parts_lines_are_json_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ('{"event": "stage ended", "request_id": "a"}', "Ready to accept connections", "{broken"):
        programs.print_line("json", "io-1", line)
    programs.print_line("text", "io-1", "as it is")
    *lines, text = capsys.readouterr().out.splitlines()
    ended, other, broken = (json.loads(line) for line in lines)
    assert ended == {"part": "io-1", "event": "stage ended", "request_id": "a"}
    assert (other["part"], other["event"], other["level"]) == ("io-1", "Ready to accept connections", "INFO")
    assert broken["event"] == "{broken"
    assert text == "  io-1 | as it is"
