"""Which GPUs get a worker, without torch and without a GPU: nvidia-smi is a script here."""

from pathlib import Path

import pytest

from models import gpus
from models.gpus import describe_gpus, gpu_present, old_drivers, visible_gpus


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi of two GPUs, alone on the PATH of a Linux machine without device files."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "  *=index) echo 0; echo 1 ;;\n"
        "  *=driver_version) echo 580.65.06; echo 575.57.08; echo 575.57.08 ;;\n"
        "  *) echo 'NVIDIA H100, 81559 MiB, 590.1'; echo 'NVIDIA H100, 81559 MiB, 590.1' ;;\n"
        "esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(gpus.platform, "system", lambda: "Linux")
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return script


@pytest.mark.usefixtures("smi")
def test_every_gpu_is_visible() -> None:
    assert visible_gpus() == ["0", "1"]
    assert describe_gpus() == ["NVIDIA H100, 81559 MiB, 590.1"] * 2


@pytest.mark.usefixtures("smi")
@pytest.mark.parametrize(
    ("limit", "expected"),
    [("1", ["1"]), ("GPU-8a,GPU-9b", ["GPU-8a", "GPU-9b"]), ("0,-1,1", ["0"]), ("", []), ("-1", [])],
)
def test_cuda_visible_devices_limits_them(
    limit: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", limit)
    assert visible_gpus() == expected


def test_driver_that_does_not_work_gives_no_description(smi: Path) -> None:
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert describe_gpus() == []


def test_a_gpu_is_present_where_the_driver_lists_one(smi: Path) -> None:
    assert gpu_present()
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert not gpu_present()


def test_a_device_file_counts_as_a_gpu_where_there_is_no_driver_to_ask(smi: Path) -> None:
    smi.unlink()
    assert not gpu_present()
    assert visible_gpus() == []
    (smi.parent / "nvidia0").touch()
    assert gpu_present()
    assert visible_gpus() == ["0"]


@pytest.mark.usefixtures("smi")
@pytest.mark.parametrize(("limit", "expected"), [("1", True), ("", False), ("-1", False)])
def test_a_gpu_that_cuda_may_not_see_is_not_present(
    limit: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", limit)
    assert gpu_present() is expected


def test_no_gpu_is_present_where_cuda_allows_one_and_the_machine_has_none(
    smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi.unlink()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not gpu_present()


@pytest.mark.parametrize(("machine", "expected"), [("arm64", True), ("x86_64", False)])
def test_a_mac_has_a_gpu_when_its_chip_is_apples(
    machine: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(gpus.platform, "machine", lambda: machine)
    assert gpu_present() is expected


@pytest.mark.usefixtures("smi")
def test_driver_without_cuda_13_is_told() -> None:
    assert old_drivers() == ["575.57.08"]
