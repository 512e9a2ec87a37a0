"""A job prepared on one machine, its picture made on another: two data folders, a store between them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.errors import Cancelled, DiskFull
from models.job import Job, LoraFile
from models.weights import demo
from models.weights.resolve import digest
from tests.support.s3_server import S3Server
from worker.config import WorkerSettings
from worker.errors import StorageError
from worker.inputs import weight_transfer
from worker.inputs.weight_transfer import WeightTransfer
from worker.storage.backend import open_objects
from worker.storage.objects import sweep

Machine = Callable[[str], WorkerSettings]


@pytest.fixture
def machine(bucket: str, tmp_path: Path) -> Machine:
    def settings(name: str) -> WorkerSettings:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return WorkerSettings(_env_file=None, data_dir=folder, storage=bucket, model="demo")

    return settings


def adapters_of(settings: WorkerSettings) -> WeightTransfer:
    return WeightTransfer(open_objects(settings), settings)


def lora(folder: Path, name: str = "style.safetensors") -> Path:
    path = folder / name
    save_file({"a": np.arange(6, dtype=np.float32)}, path)
    return path


def job(*paths: Path, controlnet: Path | None = None, controlnet_name: str | None = None) -> Job:
    files = tuple(LoraFile(name=path.name, path=path, scale=1.0, sha256=digest(path)) for path in paths)
    return Job(
        prompt="a fox", width=512, height=512, loras=files,
        controlnet=controlnet, controlnet_name=controlnet_name,
    )  # fmt: skip


def go_on() -> None:
    """Nothing stops a transfer."""


def test_lora_comes_to_the_machine_that_makes_the_picture(machine: Machine, s3_server: S3Server) -> None:
    here, there = machine("io"), machine("gpu")
    prepared = job(lora(here.data_dir))
    sent = adapters_of(here).send(prepared)
    content = prepared.loras[0].path.read_bytes()
    # As on another machine: that path means nothing there.
    prepared.loras[0].path.unlink()

    received = adapters_of(there).receive(prepared, sent, go_on).loras[0]
    assert received.path.is_relative_to(there.data_dir)
    assert received.path.read_bytes() == content
    assert received == prepared.loras[0].model_copy(update={"path": received.path})

    calls = s3_server.calls()
    assert adapters_of(there).receive(prepared, sent, go_on).loras[0] == received
    assert s3_server.calls() == calls


def test_another_file_of_the_same_name_is_not_taken_for_it(machine: Machine) -> None:
    here, there = machine("io"), machine("gpu")
    prepared = job(lora(here.data_dir))
    content = prepared.loras[0].path.read_bytes()
    sent = adapters_of(here).send(prepared)
    prepared.loras[0].path.write_bytes(b"another")
    received = adapters_of(there).receive(prepared, sent, go_on)
    assert received.loras[0].path.read_bytes() == content


def test_controlnet_of_a_local_file_comes_too(machine: Machine) -> None:
    here, there = machine("io"), machine("gpu")
    own = lora(here.data_dir, "union.safetensors")
    prepared = job(controlnet=own, controlnet_name=own.name)
    sent = adapters_of(here).send(prepared)
    own.unlink()
    received = adapters_of(there).receive(prepared, sent, go_on)
    assert received.controlnet is not None
    assert received.controlnet.is_relative_to(there.data_dir)


def test_controlnet_of_the_hub_is_each_machines_own(machine: Machine, s3_server: S3Server) -> None:
    here, there = machine("io"), machine("gpu")
    elsewhere = here.data_dir / demo.CONTROLNET.name
    prepared = job(controlnet=elsewhere, controlnet_name=here.controlnet)
    calls = s3_server.calls()
    assert adapters_of(here).send(prepared) == {}
    received = adapters_of(there).receive(prepared, {}, go_on)
    assert received.controlnet == demo.CONTROLNET
    assert s3_server.calls() == calls


def test_lora_that_was_swept_is_told(machine: Machine) -> None:
    here, there = machine("io"), machine("gpu")
    prepared = job(lora(here.data_dir))
    sent = adapters_of(here).send(prepared)
    assert sweep(open_objects(here), weight_transfer.FOLDER, -60) == 1
    prepared.loras[0].path.unlink()
    with pytest.raises(StorageError, match="send the request again"):
        adapters_of(there).receive(prepared, sent, go_on)
    assert not list(there.data_dir.rglob("*.part"))


def test_transfer_is_refused_below_the_floor_of_free_disk(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machine("io"), machine("gpu")
    prepared = job(lora(here.data_dir))
    sent = adapters_of(here).send(prepared)
    prepared.loras[0].path.unlink()
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    with pytest.raises(DiskFull):
        adapters_of(there).receive(prepared, sent, go_on)
    assert not [path for path in there.data_dir.rglob("*") if path.is_file()]


def test_transfer_stops_when_the_request_is_taken_away(machine: Machine) -> None:
    here, there = machine("io"), machine("gpu")
    prepared = job(lora(here.data_dir))
    sent = adapters_of(here).send(prepared)
    prepared.loras[0].path.unlink()

    def stop() -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        adapters_of(there).receive(prepared, sent, stop)
    assert not list(there.data_dir.rglob("*.safetensors"))


def test_on_one_machine_nothing_is_sent(tmp_path: Path) -> None:
    settings = WorkerSettings(_env_file=None, data_dir=tmp_path)
    prepared = job(lora(tmp_path))
    assert adapters_of(settings).send(prepared) == {}
    assert adapters_of(settings).receive(prepared, {}, go_on) == prepared
