import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from models import gpus
from models.command import zturbo
from models.config import DEFAULT_CONTROLNET, DEFAULT_MODEL, ModelSettings
from models.errors import ControlNetError, HubError, LoraError, WeightsMissing
from models.weights import demo
from models.weights.hub import repo_file
from models.weights.pull import plan, pull
from models.weights.resolve import (
    detector_file,
    detector_folder,
    missing_files,
    model_choice,
    resolve_controlnet,
    resolve_lora,
    resolve_model,
)
from tests.support.hub import HubStub

PIPELINE = {
    "model_index.json": json.dumps(
        {
            "_class_name": "ZImagePipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "Qwen3Model"],
            "tokenizer": ["transformers", "Qwen2Tokenizer"],
            "transformer": ["diffusers", "ZImageTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "image_encoder": [None, None],
        }
    ).encode(),
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": b"text",
    "tokenizer/tokenizer_config.json": b"{}",
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    ).encode(),
    "transformer/part-1.safetensors": b"one",
    "transformer/part-2.safetensors": b"two",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"vae",
}


@pytest.fixture(autouse=True)
def _no_gpu(hub: HubStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpu_present", lambda: False)


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    return ModelSettings(data_dir=tmp_path / "data", model="z-image-turbo")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def with_model(settings: ModelSettings, model: str) -> ModelSettings:
    return settings.model_copy(update={"model": model})


def test_auto_is_the_demo_where_there_is_neither_gpu_nor_weights(settings: ModelSettings) -> None:
    assert model_choice(with_model(settings, "auto")) == "demo"


def test_auto_is_the_real_model_with_a_gpu_unless_told_to_use_the_cpu(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "gpu_present", lambda: True)
    assert model_choice(with_model(settings, "auto")) == "z-image-turbo"
    assert model_choice(settings.model_copy(update={"model": "auto", "device": "cpu"})) == "demo"


def test_auto_is_the_real_model_once_its_weights_are_here(hub: HubStub, settings: ModelSettings) -> None:
    hub.add_repo(DEFAULT_MODEL, PIPELINE)
    pull(plan(settings, ["model"]))
    assert model_choice(with_model(settings, "auto")) == "z-image-turbo"


@pytest.mark.parametrize("model", ["demo", "z-image-turbo", "owner/model", "/srv/model"])
def test_an_explicit_model_wins(settings: ModelSettings, model: str) -> None:
    assert model_choice(with_model(settings, model)) == model


def test_the_demo_is_in_the_package_and_whole(settings: ModelSettings) -> None:
    folder = resolve_model(with_model(settings, "demo"))
    assert folder == demo.FOLDER
    assert list(missing_files(folder)) == []


def test_missing_weights_are_an_error_with_the_line_that_brings_them(
    hub: HubStub, settings: ModelSettings
) -> None:
    with pytest.raises(WeightsMissing, match=f"{DEFAULT_MODEL} .* run `{zturbo()} pull model`"):
        resolve_model(settings)
    with pytest.raises(WeightsMissing, match="pull model --model owner/model`"):
        resolve_model(with_model(settings, "owner/model"))
    assert hub.requests == []


def test_a_half_pulled_model_is_missing_until_its_last_shard(hub: HubStub, settings: ModelSettings) -> None:
    hub.add_repo(DEFAULT_MODEL, PIPELINE)
    for name in PIPELINE:
        with pytest.raises(WeightsMissing):
            resolve_model(settings)
        repo_file(DEFAULT_MODEL, name)
    folder = resolve_model(settings)
    assert (folder / "transformer/part-2.safetensors").read_bytes() == b"two"


def test_the_last_whole_commit_serves_while_a_newer_one_is_half_here(
    hub: HubStub, settings: ModelSettings
) -> None:
    hub.add_repo(DEFAULT_MODEL, PIPELINE)
    pull(plan(settings, ["model"]))
    old = resolve_model(settings)
    hub.add_repo(DEFAULT_MODEL, PIPELINE | {"vae/diffusion_pytorch_model.safetensors": b"new"})
    repo_file(DEFAULT_MODEL, "model_index.json")
    assert resolve_model(settings) == old
    pull(plan(settings, ["model"]))
    assert resolve_model(settings) != old


def test_a_folder_is_used_as_it_is_and_what_it_lacks_is_named(
    settings: ModelSettings, tmp_path: Path
) -> None:
    folder = write(tmp_path / "mine", PIPELINE)
    assert resolve_model(with_model(settings, str(folder))) == folder
    (folder / "transformer/part-2.safetensors").unlink()
    (folder / "tokenizer/tokenizer_config.json").unlink()
    with pytest.raises(WeightsMissing, match=r"lacks tokenizer/tokenizer_config\.json, transformer/part-2"):
        resolve_model(with_model(settings, str(folder)))


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_of_a_part_that_a_file_replaces_only_the_configuration_is_needed(
    hub: HubStub, settings: ModelSettings, tmp_path: Path, part: str
) -> None:
    hub.add_repo(DEFAULT_MODEL, PIPELINE)
    (tmp_path / "mine.safetensors").write_bytes(b"x")
    replaced = settings.model_copy(update={part: tmp_path / "mine.safetensors"})
    pull(plan(replaced, ["model"]))
    folder = resolve_model(replaced)
    assert model_choice(with_model(replaced, "auto")) == "z-image-turbo"
    assert (folder / part / "config.json").is_file()
    assert not list((folder / part).glob("*.safetensors*"))
    with pytest.raises(WeightsMissing, match=f"run `{zturbo()} pull model`"):
        resolve_model(settings)
    (folder / part / "config.json").unlink()
    with pytest.raises(WeightsMissing, match=rf"lacks {part}/config\.json"):
        resolve_model(with_model(replaced, str(folder)))


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_a_file_that_is_to_replace_a_part_and_is_not_there_is_named_with_its_setting(
    settings: ModelSettings, tmp_path: Path, part: str
) -> None:
    replaced = with_model(settings, "demo").model_copy(update={part: tmp_path / "no.safetensors"})
    with pytest.raises(WeightsMissing, match=rf"ZTURBO_{part.upper()} names .*no\.safetensors"):
        resolve_model(replaced)


@pytest.mark.parametrize("model", ["no-such-folder", "/no/such/folder", "../x"])
def test_a_folder_that_is_not_there_is_told(settings: ModelSettings, model: str) -> None:
    with pytest.raises(WeightsMissing, match="no model folder"):
        resolve_model(with_model(settings, model))


@pytest.mark.parametrize("index", [b"", b"{}", b"[]", b"[[]]", b"7", b'"x"', b"\xff"])
def test_a_damaged_model_index_counts_as_missing(tmp_path: Path, index: bytes) -> None:
    folder = write(tmp_path / "mine", PIPELINE | {"model_index.json": index})
    assert list(missing_files(folder)) == ["model_index.json"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (DEFAULT_CONTROLNET, "controlnet"),
        (DEFAULT_CONTROLNET + "/Z-Image-Turbo-Fun-Controlnet-Union.safetensors", "controlnet"),
        ("Alibaba-PAI/z-image-turbo-fun-controlnet-union", "controlnet"),
        (DEFAULT_CONTROLNET + "-2.1", "controlnet-2.1"),
        (DEFAULT_CONTROLNET + "-2.0", "controlnet-2.1"),
    ],
)
def test_the_demo_has_every_documented_controlnet(
    hub: HubStub, settings: ModelSettings, name: str, file: str
) -> None:
    found = resolve_controlnet(name, with_model(settings, "demo"))
    assert found.path == demo.FOLDER / f"{file}.safetensors"
    assert found.path.is_file()
    assert found.name == name
    assert hub.requests == []


def test_a_controlnet_is_fetched_once_and_then_taken_from_the_cache(
    hub: HubStub, settings: ModelSettings
) -> None:
    hub.add_repo(DEFAULT_CONTROLNET, {"union.safetensors": b"1.0"})
    found = resolve_controlnet(DEFAULT_CONTROLNET, settings)
    assert found.path.read_bytes() == b"1.0"
    assert found.name == DEFAULT_CONTROLNET + "/union.safetensors"
    asked = len(hub.requests)
    assert resolve_controlnet(DEFAULT_CONTROLNET, settings) == found
    assert len(hub.requests) == asked


def test_a_controlnet_answers_under_its_former_name(hub: HubStub, settings: ModelSettings) -> None:
    hub.add_repo(DEFAULT_CONTROLNET + "-2.1", {"a-2.1-8steps.safetensors": b"2.1", "a-2.1.safetensors": b""})
    found = resolve_controlnet(DEFAULT_CONTROLNET + "-2.0", settings)
    assert found.name == DEFAULT_CONTROLNET + "-2.1/a-2.1-8steps.safetensors"


def test_the_configured_controlnet_may_be_any_file_and_a_callers_may_not(
    settings: ModelSettings, tmp_path: Path
) -> None:
    mine = tmp_path / "union.bin"
    mine.write_bytes(b"x")
    configured = settings.model_copy(update={"controlnet": str(mine)})
    assert resolve_controlnet(str(mine), configured).path == mine
    with pytest.raises(ControlNetError, match="cannot be resolved"):
        resolve_controlnet(str(mine), settings)
    with pytest.raises(ControlNetError, match="neither on the hub nor a file in the LoRA folder"):
        resolve_controlnet("union", settings)


def test_a_controlnet_may_lie_in_the_lora_folder(settings: ModelSettings) -> None:
    write(settings.loras_path, {"union.safetensors": b"x"})
    assert resolve_controlnet("union", settings).path == settings.loras_path / "union.safetensors"


def test_a_lora_is_found_by_its_local_name(settings: ModelSettings) -> None:
    write(settings.loras_path, {"style.safetensors": b"1", "anime/soft.safetensors": b"2"})
    found = resolve_lora("style", settings)
    assert found == resolve_lora("style.safetensors", settings)
    assert found.sha256 == hashlib.sha256(b"1").hexdigest()
    assert resolve_lora("anime/soft.safetensors", settings).path.read_bytes() == b"2"


def test_a_replaced_local_lora_has_a_new_hash(settings: ModelSettings) -> None:
    write(settings.loras_path, {"style.safetensors": b"1"})
    assert resolve_lora("style", settings).sha256 == hashlib.sha256(b"1").hexdigest()
    write(settings.loras_path, {"style.safetensors": b"22"})
    assert resolve_lora("style", settings).sha256 == hashlib.sha256(b"22").hexdigest()


def test_a_lora_is_found_on_the_hub(hub: HubStub, settings: ModelSettings) -> None:
    hub.add_repo("owner/style", {"a.safetensors": b"a", "b.safetensors": b"b"})
    for name in ("owner/style/b.safetensors", "owner/style:b", "owner/style:b.safetensors"):
        found = resolve_lora(name, settings)
        assert found.path.read_bytes() == b"b"
        assert found.name == "owner/style/b.safetensors"
        assert found.sha256 == hashlib.sha256(b"b").hexdigest()
    with pytest.raises(HubError, match=r"several .* a\.safetensors, b\.safetensors"):
        resolve_lora("owner/style", settings)
    with pytest.raises(HubError, match=r"at most 0\.0 MB"):
        resolve_lora("owner/style:a", settings, max_bytes=0)


@pytest.mark.parametrize("name", ["style", "../style", "/etc/passwd", "a\\b", "https://h/x.safetensors", ""])
def test_a_lora_that_cannot_be_found_is_named(settings: ModelSettings, name: str) -> None:
    with pytest.raises(LoraError):
        resolve_lora(name, settings)


def test_detectors_come_from_the_cache_only(hub: HubStub, settings: ModelSettings) -> None:
    annotators = {name: name.encode() for name in ("dpt_hybrid-midas-501f0c75.pt", "body_pose_model.pth")}
    annotators |= {"hand_pose_model.pth": b"h", "facenet.pth": b"f", "other.pth": b"o"}
    hub.add_repo("lllyasviel/Annotators", annotators)
    anything = {"config.json": b"{}", "preprocessor_config.json": b"{}", "model.safetensors": b"d"}
    hub.add_repo("depth-anything/Depth-Anything-V2-Small-hf", anything)
    with pytest.raises(WeightsMissing, match=f"run `{zturbo()} pull detectors`"):
        detector_file("body_pose_model.pth")
    assert hub.requests == []
    pull(plan(settings, ["detectors"]))
    hub.close()
    assert detector_file("body_pose_model.pth").read_bytes() == b"body_pose_model.pth"
    folder = detector_folder("depth-anything/Depth-Anything-V2-Small-hf")
    assert {path.name for path in folder.iterdir()} == set(anything)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("other.pth"))
