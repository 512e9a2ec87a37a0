import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from models.config import DEFAULT_CONTROLNET, DEFAULT_MODEL, ModelSettings
from models.errors import DiskFull, HubError
from models.weights import download
from models.weights.hub import Progress, cached_file
from models.weights.pull import check, discard, plan, pull
from tests.support.hub import HubStub

SHARD = os.urandom(2 * 2**20)
FILES = {
    "README.md": b"# model",
    "assets/picture.png": b"png",
    "model_index.json": b"{}",
    "scheduler/scheduler_config.json": b"{}",
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model.safetensors": SHARD,
    "transformer/diffusion_pytorch_model.bin": b"pickle",
    "transformer/old/config.json": b"{}",
    "tokenizer/merges.txt": b"a b",
    "tokenizer/tokenizer.json": b"{}",
}
WANTED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def settings(hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSettings:
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.0)
    hub.add_repo(DEFAULT_MODEL, FILES)
    hub.add_repo(DEFAULT_CONTROLNET, {"union.safetensors": b"union", "README.md": b""})
    return ModelSettings(data_dir=tmp_path / "data", model="z-image-turbo")


def test_a_plan_tells_files_sizes_and_what_is_still_missing(settings: ModelSettings) -> None:
    planned = plan(settings, ["model", "controlnet"])
    assert {file.filename for file in planned.files} == WANTED | {"union.safetensors"}
    assert planned.missing_bytes == sum(file.size for file in planned.files) > len(SHARD)
    pull(plan(settings, ["controlnet"]))
    assert {file.filename for file in plan(settings, ["model", "controlnet"]).missing} == WANTED
    pull(planned)
    assert plan(settings, ["model", "controlnet"]).missing_bytes == 0


def test_pull_brings_all_files_of_one_commit_side_by_side(settings: ModelSettings) -> None:
    pulled = pull(plan(settings, ["model"]))
    snapshot = next(file.path.parent for file in pulled if file.filename == "model_index.json")
    found = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    assert found == WANTED


def test_pull_reports_progress_that_adds_up(settings: ModelSettings) -> None:
    done: dict[str, int] = {}

    def on_progress(progress: Progress) -> None:
        done[progress.filename] = progress.done

    planned = plan(settings, ["model"])
    pull(planned, on_progress)
    assert sum(done.values()) == planned.missing_bytes


def test_an_interrupted_pull_goes_on_where_it_stopped(hub: HubStub, settings: ModelSettings) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 2**20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(plan(settings, ["model"]), stop)
    pull(plan(settings, ["model"]))
    last = hub.downloads("diffusion_pytorch_model.safetensors")[-1]
    assert int(last.headers["range"].removeprefix("bytes=").removesuffix("-")) >= 2**20
    assert all(verdict.state == "ok" for verdict in check(plan(settings, ["model"])))


def test_disk_space_is_looked_at_for_the_whole_plan_first(
    hub: HubStub, settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(settings, ["model"])
    monkeypatch.setattr("models.disk.FLOOR_BYTES", 10**18)
    with pytest.raises(DiskFull, match="HF_HOME"):
        pull(planned)
    assert hub.downloads() == []


def test_check_tells_missing_and_damaged_from_sound(settings: ModelSettings) -> None:
    def states() -> dict[str, str]:
        return {v.filename: v.state for v in check(plan(settings, ["model", "controlnet"]))}

    assert set(states().values()) == {"missing"}
    pull(plan(settings, ["model"]))
    shard = "transformer/diffusion_pytorch_model.safetensors"
    here = cached_file(DEFAULT_MODEL, shard)
    assert here is not None
    here.path.resolve().write_bytes(SHARD[:-1] + bytes([SHARD[-1] ^ 1]))
    assert states()[shard] == "damaged"
    assert states()["union.safetensors"] == "missing"
    assert states()["model_index.json"] == "ok"


def test_a_discarded_file_is_pulled_again(settings: ModelSettings) -> None:
    pull(plan(settings, ["controlnet"]))
    here = cached_file(DEFAULT_CONTROLNET)
    assert here is not None
    here.path.resolve().write_bytes(b"nuion")
    for verdict in check(plan(settings, ["controlnet"])):
        assert verdict.state == "damaged"
        discard(verdict)
    assert [verdict.state for verdict in check(plan(settings, ["controlnet"]))] == ["missing"]
    pull(plan(settings, ["controlnet"]))
    assert here.path.read_bytes() == b"union"


def test_any_repository_can_be_pulled_by_its_id(hub: HubStub, settings: ModelSettings) -> None:
    hub.add_repo("owner/style", {"a.safetensors": b"a", "b.safetensors": b"b"})
    assert [file.filename for file in pull(plan(settings, ["owner/style/b.safetensors"]))] == [
        "b.safetensors"
    ]
    with pytest.raises(HubError, match="several"):
        plan(settings, ["owner/style"])


def test_a_model_by_hub_id_is_pulled_when_the_settings_name_it(hub: HubStub, settings: ModelSettings) -> None:
    hub.add_repo("owner/tuned", FILES)
    tuned = settings.model_copy(update={"model": "owner/tuned"})
    assert {file.repo_id for file in plan(tuned, ["model"]).files} == {"owner/tuned"}
    hub.add_repo("owner/lora", {"a.safetensors": b"a"})
    with pytest.raises(HubError, match="no model in the diffusers layout"):
        plan(settings.model_copy(update={"model": "owner/lora"}), ["model"])


def test_what_lies_in_folders_of_our_own_needs_no_pull(settings: ModelSettings, tmp_path: Path) -> None:
    (tmp_path / "union.safetensors").write_bytes(b"")
    own = {"model": str(tmp_path), "controlnet": str(tmp_path / "union.safetensors")}
    assert plan(settings.model_copy(update=own), ["model", "controlnet"]).files == ()


@pytest.mark.parametrize(
    "word", ["everything", "../x", "https://h/x.safetensors", "a/b/../c.safetensors", ""]
)
def test_a_word_that_names_nothing_is_refused(hub: HubStub, settings: ModelSettings, word: str) -> None:
    with pytest.raises(HubError, match="cannot be pulled"):
        plan(settings, [word])
    assert hub.requests == []


def test_offline_a_plan_is_refused_in_a_sentence(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        plan(settings, ["model"])
