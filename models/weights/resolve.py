"""The files on this machine that a setting or a caller's name means. Nothing is loaded.

The model itself is never downloaded here: what is missing is a WeightsMissing with the `zturbo pull` line
that brings it. LoRAs and ControlNets that a caller names by hub id are fetched on first use.
"""

import functools
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from models import gpus
from models.command import zturbo
from models.config import ModelSettings
from models.errors import ControlNetError, HubError, LoraError, WeightsMissing
from models.weights import demo
from models.weights.download import file_sha256
from models.weights.hub import OnProgress, cached_file, cached_snapshots, repo_file
from models.weights.published import DETECTORS, MODEL, Published, find_controlnet
from models.weights.reference import (
    HubReference,
    LocalReference,
    Reference,
    ReferenceFault,
    is_repo_id,
    read_reference,
)

DEMO = "demo"
REAL = "z-image-turbo"


@dataclass(frozen=True)
class ResolvedFile:
    """A file that a name stands for."""

    name: str
    """The name in the result: hub id and file, or the local name."""
    path: Path
    sha256: str | None
    """None where it would have to be computed from gigabytes."""


def model_choice(settings: ModelSettings) -> str:
    """What `settings.model` comes to; `auto`: the real model if its weights or a GPU are here, else demo."""
    if settings.model != "auto":
        return settings.model
    real = _complete_snapshot(MODEL.repo_id, replaced_parts(settings)) or (
        settings.device != "cpu" and gpus.gpu_present()
    )
    return REAL if real else DEMO


def replaced_parts(settings: ModelSettings) -> dict[str, Path]:
    """Component -> the single file that the settings put in place of its weights."""
    files = {part: getattr(settings, part) for part in ("transformer", "text_encoder", "vae")}
    return {part: file.expanduser() for part, file in files.items() if file}


def resolve_model(settings: ModelSettings) -> Path:
    """The folder, in the diffusers layout, of the model that the settings choose.

    It need not have the weights of a part that a single file replaces. Raises WeightsMissing.
    """
    replaced = replaced_parts(settings)
    for part, file in replaced.items():
        if not file.is_file():
            raise WeightsMissing(f"ZTURBO_{part.upper()} names {file}, and there is no such file.")
    choice = model_choice(settings)
    if choice == DEMO:
        return demo.FOLDER
    folder = Path(choice).expanduser()
    if choice != REAL and folder.is_dir():
        if missing := list(missing_files(folder, replaced)):
            raise WeightsMissing(f"The model folder {folder} lacks {_some(missing)}.")
        return folder
    repo_id = MODEL.repo_id if choice == REAL else choice
    if not is_repo_id(repo_id):
        raise WeightsMissing(
            f"There is no model folder {choice!r}; set ZTURBO_MODEL to a folder, a hub id or 'demo'."
        )
    if folder_of_commit := _complete_snapshot(repo_id, replaced):
        return folder_of_commit
    raise WeightsMissing(
        f"The weights of {repo_id} are not, or not all, on this machine; run `{zturbo()} pull model"
        + ("`." if choice == REAL else f" --model {repo_id}`.")
    )


def missing_files(folder: Path, replaced: Container[str] = ()) -> Iterator[str]:
    """What `model_index.json` and the shard indexes of a diffusers folder promise and the folder has not.

    The weights of the `replaced` components are not asked for.
    """
    try:
        index = dict(json.loads((folder / "model_index.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        index = {}
    components = [name for name, entry in index.items() if isinstance(entry, list) and all(entry)]
    if not components:
        yield "model_index.json"
    for component in components:
        needed, weights = _needed(component)
        yield from (f"{component}/{name}" for name in needed if not (folder / component / name).is_file())
        if weights and component not in replaced:
            yield from _missing_weights(folder, component, weights)


def resolve_controlnet(
    name: str, settings: ModelSettings, on_progress: OnProgress | None = None
) -> ResolvedFile:
    """The control checkpoint that `name` is: the setting's own file, a hub id or a name in the LoRA folder.

    With the demo model every known ControlNet is the demo's own. Raises ControlNetError for a name that is
    none or is not there, HubError when the hub does not give it.
    """
    if name == settings.controlnet and (own := Path(name).expanduser()).is_file():
        return ResolvedFile(own.name, own, None)
    try:
        reference = read_reference(name)
    except ReferenceFault as fault:
        raise ControlNetError(f"The ControlNet {name!a} cannot be resolved: {fault}.") from None
    match reference:
        case HubReference(repo_id, filename):
            known = find_controlnet(repo_id)
            if known and model_choice(settings) == DEMO:
                return ResolvedFile(name, demo.controlnet(known), None)
            repo_id = known.repo_id if known else repo_id
            # A ControlNet is part of the model: `zturbo pull` updates it, a request does not.
            found = cached_file(repo_id, filename) or repo_file(repo_id, filename, on_progress)
            return ResolvedFile(found.name, found.path, found.sha256)
        case LocalReference(local):
            if path := _in_folder(settings.loras_path, local):
                return ResolvedFile(local, path, None)
    raise ControlNetError(f"The ControlNet {name!a} is neither on the hub nor a file in the LoRA folder.")


def resolve_lora(
    name: str,
    settings: ModelSettings,
    on_progress: OnProgress | None = None,
    max_bytes: int | None = None,
) -> ResolvedFile:
    """The file of a LoRA named by hub id or by a name in the LoRA folder; a URL is the caller's to fetch.

    With the demo model its own LoRAs are there too. `max_bytes` holds for what is downloaded. Raises
    LoraError for a name that is none or is not there, HubError when the hub does not give it.
    """
    match _lora_reference(name):
        case HubReference(repo_id, filename):
            found = repo_file(repo_id, filename, on_progress, max_bytes)
            return ResolvedFile(found.name, found.path, found.sha256 or digest(found.path))
        case LocalReference(local):
            path = find_local_lora(local, settings)
            return ResolvedFile(local, path, digest(path))
    raise LoraError(f"The LoRA {name!a} is a URL, not a hub id or a local name.")


def find_local_lora(name: str, settings: ModelSettings) -> Path:
    """The file of a LoRA that lies in the LoRA folder or comes with the demo model. Raises LoraError."""
    folders = [settings.loras_path, *([demo.LORAS] if model_choice(settings) == DEMO else [])]
    for folder in folders:
        if path := _in_folder(folder, name):
            return path
    raise LoraError(
        f"There is no LoRA {name!a} in this server's LoRA folder; GET /v1/loras lists those that there are."
    )


def detector_file(filename: str) -> Path:
    """A detector's weight file, from the cache only: most are pickles, which `pull` alone brings."""
    return _detector(next(row for row in DETECTORS if filename in row.files), filename)


def detector_folder(repo_id: str) -> Path:
    """The folder of a detector that is loaded as a whole, from the cache only."""
    row = next(row for row in DETECTORS if row.repo_id == repo_id)
    files = [_detector(row, filename) for filename in row.files]
    return files[0].parent


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex; computed once as long as the file stays as it is."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def _detector(row: Published, filename: str) -> Path:
    if found := cached_file(row.repo_id, filename):
        return found.path
    raise WeightsMissing(
        f"The detector weights {filename} are not on this machine; run `{zturbo()} pull detectors`."
    )


def _lora_reference(name: str) -> Reference:
    try:
        return read_reference(name)
    except ReferenceFault as fault:
        raise LoraError(f"The LoRA {name!a} cannot be resolved: {fault}.") from None


def _in_folder(folder: Path, name: str) -> Path | None:
    """`name` in `folder`, letter for letter; it has been checked to be a plain relative name."""
    path = folder / name
    return path if path.is_file() else None


def _complete_snapshot(repo_id: str, replaced: Container[str]) -> Path | None:
    snapshots = cached_snapshots(repo_id)
    return next((folder for folder in snapshots if not any(missing_files(folder, replaced))), None)


def _needed(component: str) -> tuple[tuple[str, ...], str | None]:
    """The small files of a component, and the stem of its weight files."""
    match component:
        case "scheduler":
            return ("scheduler_config.json",), None
        case "tokenizer":
            return ("tokenizer_config.json",), None
        case "text_encoder":
            return ("config.json",), "model"
        case _:
            return ("config.json",), "diffusion_pytorch_model"


def _missing_weights(folder: Path, component: str, stem: str) -> Iterator[str]:
    if (folder / component / f"{stem}.safetensors").is_file():
        return
    index = f"{component}/{stem}.safetensors.index.json"
    try:
        shards = set(json.loads((folder / index).read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError):
        yield f"{component}/{stem}.safetensors"
        return
    yield from sorted(f"{component}/{name}" for name in shards if not (folder / component / name).is_file())


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more files" if len(names) > 4 else "")


def default_controlnet(settings: ModelSettings) -> Path | None:
    """The branch to keep loaded; None when it cannot be had now: a request that needs it will say why."""
    try:
        return resolve_controlnet(settings.controlnet, settings).path
    except (ControlNetError, HubError):
        return None
