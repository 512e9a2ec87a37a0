"""The entries of `loras`, by hub id, URL and local name, to LoRAs and the ControlNet among them."""

import os
import struct
import time
from collections.abc import Iterator, Sequence
from json import dumps
from pathlib import Path

import pytest
from huggingface_hub import constants

from models.config import DEFAULT_CONTROLNET
from models.errors import Cancelled, CheckpointError, ControlNetError, DiskFull, HubError, LoraError
from models.job import LoraFile
from models.schema.inputs import LoraInput
from models.weights import demo
from models.weights.hub import repo_file
from tests.support.hub import HubStub
from tests.worker.inputs.web import Web
from worker.config import WorkerSettings
from worker.errors import FetchError, StorageError
from worker.inputs.disk_quota import DiskQuota
from worker.inputs.lora_entries import ControlNet, resolve_entries


def checkpoint(*names: str) -> bytes:
    """A safetensors file with a number under each of the names."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * number, 4 * number + 4]}
        for number, name in enumerate(names)
    }
    text = dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * len(names))


LORA = checkpoint("layers.0.attention.to_q.lora_A.weight", "layers.0.attention.to_q.lora_B.weight")
CONTROLNET = checkpoint("control_layers.0.after_proj.weight")
OTHER_CONTROLNET = checkpoint("control_layers.1.after_proj.weight")
MODEL = checkpoint("layers.0.attention.to_q.weight", "x_embedder.weight")


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    settings = WorkerSettings(_env_file=None, data_dir=tmp_path, model="demo", allow_hosts="127.0.0.1")
    settings.loras_path.mkdir()
    return settings


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


def trim(settings: WorkerSettings, max_bytes: int) -> int:
    return DiskQuota(settings.model_copy(update={"max_cache_bytes": max_bytes}), lambda: ()).trim()


def resolve(
    settings: WorkerSettings, *entries: tuple[str, float]
) -> tuple[Sequence[LoraFile], ControlNet | None]:
    inputs = [LoraInput(path=path, scale=scale) for path, scale in entries]
    return resolve_entries(inputs, settings, lambda: None)


def test_no_entries_are_no_work(settings: WorkerSettings) -> None:
    assert resolve(settings) == ((), None)


def test_loras_of_every_origin_keep_their_order(settings: WorkerSettings, hub: HubStub, web: Web) -> None:
    hub.add_repo("ann/style", {"style.safetensors": LORA})
    (settings.loras_path / "local.safetensors").write_bytes(LORA)
    url = web.on("/remote", lambda call: call.reply(LORA))
    loras, controlnet = resolve(settings, (url, 0.5), ("ann/style", 1.0), ("local", 2.0))
    assert controlnet is None
    assert [(lora.name, lora.scale) for lora in loras] == [(url, 0.5), ("ann/style", 1.0), ("local", 2.0)]
    assert {lora.path.read_bytes() for lora in loras} == {LORA}
    assert {len(lora.sha256) for lora in loras} == {64}


def test_known_controlnet_is_chosen_by_its_id(settings: WorkerSettings) -> None:
    loras, controlnet = resolve(settings, (DEFAULT_CONTROLNET, 0.5))
    assert loras == ()
    assert controlnet == ControlNet(DEFAULT_CONTROLNET, demo.CONTROLNET, 0.5), (
        "the demo model has its own, under the documented ids"
    )


def test_other_controlnet_is_told_by_its_keys(settings: WorkerSettings, hub: HubStub) -> None:
    hub.add_repo("ann/edges", {"edges.safetensors": CONTROLNET})
    (settings.loras_path / "local.safetensors").write_bytes(LORA)
    loras, controlnet = resolve(settings, ("local", 1.0), ("ann/edges", 0.5))
    assert [lora.name for lora in loras] == ["local"]
    assert controlnet is not None
    assert (controlnet.name, controlnet.scale) == ("ann/edges/edges.safetensors", 0.5)


def test_same_controlnet_twice_multiplies_its_scales(settings: WorkerSettings) -> None:
    _, controlnet = resolve(settings, (DEFAULT_CONTROLNET, 0.5), (DEFAULT_CONTROLNET, 0.5))
    assert controlnet is not None
    assert controlnet.scale == 0.25


def test_two_controlnets_are_an_error_that_names_both(settings: WorkerSettings) -> None:
    (settings.loras_path / "one.safetensors").write_bytes(CONTROLNET)
    (settings.loras_path / "two.safetensors").write_bytes(OTHER_CONTROLNET)
    with pytest.raises(ControlNetError, match=r"^loras\[1\]\.path: two.* one"):
        resolve(settings, ("one", 1.0), ("two", 1.0))


def test_whole_model_is_no_lora(settings: WorkerSettings) -> None:
    (settings.loras_path / "model.safetensors").write_bytes(MODEL)
    with pytest.raises(LoraError, match=r"^loras\[0\]\.path: .*whole model"):
        resolve(settings, ("model", 1.0))


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"\x80\x04pickle", LORA[:-1]])
def test_what_is_no_checkpoint_is_refused_from_anywhere(
    settings: WorkerSettings, web: Web, content: bytes
) -> None:
    (settings.loras_path / "local.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^loras\[0\]\.path: "):
        resolve(settings, ("local", 1.0))
    url = web.on("/remote", lambda call: call.reply(content))
    with pytest.raises(CheckpointError, match=r"^loras\[0\]\.path: "):
        resolve(settings, (url, 1.0))


def test_lora_that_is_not_found_names_its_entry(settings: WorkerSettings, hub: HubStub, web: Web) -> None:
    with pytest.raises(LoraError, match=r"^loras\[0\]\.path: .*nowhere"):
        resolve(settings, ("nowhere", 1.0))
    with pytest.raises(HubError, match=r"^loras\[0\]\.path: .*ann/missing"):
        resolve(settings, ("ann/missing", 1.0))
    with pytest.raises(FetchError, match=r"^loras\[0\]\.path: .*404"):
        resolve(settings, (web.on("/gone", lambda call: call.reply(status=404)), 1.0))


def aged(settings: WorkerSettings) -> None:
    """Two hours pass: nothing that was fetched is in use any more."""
    for note in (settings.cache_path / "hub").iterdir():
        os.utime(note, (time.time() - 7200,) * 2)


def test_what_a_request_brought_into_the_hubs_cache_counts_as_fetched(
    settings: WorkerSettings, hub: HubStub
) -> None:
    for name in ("one", "two"):
        hub.add_repo(f"ann/{name}", {"style.safetensors": LORA})
        (lora,), _ = resolve(settings, (f"ann/{name}", 1.0))
    in_line = settings.model_copy(update={"max_cache_bytes": 1})
    assert DiskQuota(in_line, lambda: {"ann/one/style.safetensors", "ann/two"}).trim() == 0
    assert lora.path.is_file()
    aged(settings)
    resolve(settings, ("ann/two", 1.0))
    assert trim(settings, len(LORA)) == 1
    assert lora.path.is_file()
    assert not list((lora.path.parents[3] / "models--ann--one").rglob("*.safetensors"))
    assert not list((lora.path.parents[3] / "models--ann--one" / "blobs").iterdir())
    (again,), _ = resolve(settings, ("ann/one", 1.0))
    assert again.path.read_bytes() == LORA


def test_what_was_in_the_hubs_cache_before_is_never_deleted(settings: WorkerSettings, hub: HubStub) -> None:
    hub.add_repo("ann/own", {"style.safetensors": LORA})
    own = repo_file("ann/own")
    resolve(settings, ("ann/own", 1.0))
    assert trim(settings, 0) == 0
    assert own.path.read_bytes() == LORA


def test_bytes_that_another_commit_has_too_stay(settings: WorkerSettings, hub: HubStub) -> None:
    hub.add_repo("ann/own", {"style.safetensors": LORA})
    own = repo_file("ann/own")
    hub.add_repo("ann/own", {"style.safetensors": LORA, "README.md": b"newer"})
    resolve(settings, ("ann/own", 1.0))
    aged(settings)
    assert trim(settings, 0) == 1
    assert own.path.read_bytes() == LORA


def test_download_from_the_hub_that_nobody_goes_on_with_is_deleted(
    settings: WorkerSettings, hub: HubStub
) -> None:
    hub.add_repo("ann/style", {"style.safetensors": LORA})
    hub.cut("style.safetensors", after=10, times=100)
    with pytest.raises(HubError):
        resolve(settings, ("ann/style", 1.0))
    (part,) = Path(constants.HF_HUB_CACHE).rglob("*.incomplete")
    assert trim(settings, 10**9) == 0
    aged(settings)
    os.utime(part, (time.time() - 7200,) * 2)
    assert trim(settings, 10**9) == 1
    assert not part.exists()


@pytest.mark.parametrize("by", ["hub", "URL"])
def test_full_disk_names_the_entry_and_is_no_fault_of_the_caller(
    settings: WorkerSettings, hub: HubStub, web: Web, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    hub.add_repo("ann/style", {"style.safetensors": LORA})
    url = web.on("/a", lambda call: call.reply(LORA))
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    with pytest.raises(DiskFull, match=r"^loras\[0\]\.path: The disk of .* are kept free") as caught:
        resolve(settings, ("ann/style" if by == "hub" else url, 1.0))
    assert caught.value.code == StorageError.code


def test_download_from_the_hub_stops_when_it_is_no_longer_wanted(
    settings: WorkerSettings, hub: HubStub
) -> None:
    def stop() -> None:
        raise Cancelled("no longer wanted")

    hub.add_repo("ann/style", {"style.safetensors": LORA})
    with pytest.raises(Cancelled):
        resolve_entries([LoraInput(path="ann/style")], settings, stop)
