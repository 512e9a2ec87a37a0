"""Which GPUs get a worker, without torch and without a GPU: nvidia-smi is a script here."""

from pathlib import Path

import pytest

from models.gpus import describe_gpus, visible_gpus


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi of two GPUs, alone on the PATH."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "  *=index) echo 0; echo 1 ;;\n"
        "  *) echo 'NVIDIA H100, 81559 MiB, 590.1'; echo 'NVIDIA H100, 81559 MiB, 590.1' ;;\n"
        "esac\n"
    )
    script.chmod(0o755)
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
