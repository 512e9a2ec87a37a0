"""Bringing weights to this machine before they are needed, and checking those that are here.

What can be pulled: `model` (what the settings choose), `controlnet` (the default one), `detectors`, or any
`owner/repo[/file]` on the hub.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import constants

from models.config import ModelSettings
from models.disk import check_room
from models.errors import HubError
from models.weights.download import CACHE_NAME, file_sha256
from models.weights.hub import (
    HubFile,
    Listing,
    OnProgress,
    RemoteFile,
    cached_file,
    choose_file,
    fetch,
    list_files,
)
from models.weights.published import DETECTORS, MODEL, find_controlnet
from models.weights.reference import HubReference, ReferenceFault, is_repo_id, read_reference
from models.weights.resolve import DEMO, REAL, model_choice, replaced_parts

EVERYTHING = ("model", "controlnet", "detectors")

PIPELINE_FOLDERS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
PIPELINE_SUFFIXES = (".json", ".txt", ".jinja", ".model", ".safetensors")


@dataclass(frozen=True)
class PlannedFile:
    """A file that `pull` will bring, or that is here already."""

    listing: Listing
    filename: str
    cached: bool

    @property
    def repo_id(self) -> str:
        return self.listing.repo_id

    @property
    def remote(self) -> RemoteFile:
        return self.listing.files[self.filename]

    @property
    def size(self) -> int:
        return self.remote.size


@dataclass(frozen=True)
class Plan:
    """All files of a pull, by repository and in the order of download."""

    files: tuple[PlannedFile, ...]

    @property
    def missing(self) -> tuple[PlannedFile, ...]:
        return tuple(file for file in self.files if not file.cached)

    @property
    def missing_bytes(self) -> int:
        return sum(file.size for file in self.missing)


@dataclass(frozen=True)
class Verdict:
    """What `check` found of one file."""

    repo_id: str
    filename: str
    state: Literal["ok", "missing", "damaged"]


def plan(settings: ModelSettings, what: Sequence[str] = EVERYTHING) -> Plan:
    """Ask the hub which files `what` comes to; `model` without the weights that a single file replaces.

    Raises HubError, also for a word that names nothing.
    """
    listings: dict[str, Listing] = {}
    files: dict[tuple[str, str], PlannedFile] = {}
    replaced = replaced_parts(settings)
    for word in what:
        for repo_id, filename in _wanted(settings, word):
            if repo_id not in listings:
                listings[repo_id] = list_files(repo_id)
            listing = listings[repo_id]
            for name in [filename] if filename else _own_choice(listing, word, replaced):
                if name not in listing.files:
                    raise HubError(f"The hub repository {repo_id} has no file {name!a}.")
                here = cached_file(repo_id, name)
                cached = here is not None and here.commit == listing.commit
                files[repo_id, name] = PlannedFile(listing, name, cached)
    return Plan(tuple(files.values()))


def pull(planned: Plan, on_progress: OnProgress | None = None) -> list[HubFile]:
    """Bring every file of a plan; one that was interrupted goes on where it stopped.

    Raises DiskFull, before the first byte, and HubError.
    """
    if planned.missing_bytes:
        check_room(Path(constants.HF_HUB_CACHE), planned.missing_bytes, CACHE_NAME)
    return [fetch(file.listing, file.filename, on_progress) for file in planned.files]


def check(planned: Plan) -> Iterable[Verdict]:
    """Compare every file of a plan with the hub's size and SHA-256, one after the other as they are read."""
    for file in planned.files:
        here = cached_file(file.repo_id, file.filename)
        if here is None:
            yield Verdict(file.repo_id, file.filename, "missing")
            continue
        sound = here.path.stat().st_size == file.size and (
            file.remote.sha256 is None or file_sha256(here.path) == file.remote.sha256
        )
        yield Verdict(file.repo_id, file.filename, "ok" if sound else "damaged")


def discard(verdict: Verdict) -> None:
    """Remove a damaged file from the cache, so that the next pull brings it again."""
    if here := cached_file(verdict.repo_id, verdict.filename):
        here.path.resolve().unlink()
        here.path.unlink(missing_ok=True)


def _wanted(settings: ModelSettings, word: str) -> list[tuple[str, str | None]]:
    """Repositories and files; a file of None leaves the choice to `_own_choice`."""
    match word:
        case "model":
            return _wanted_model(model_choice(settings))
        case "controlnet":
            return [] if Path(settings.controlnet).is_file() else [_reference(settings.controlnet)]
        case "detectors":
            return [(row.repo_id, name) for row in DETECTORS for name in row.files]
    return [_reference(word)]


def _wanted_model(choice: str) -> list[tuple[str, str | None]]:
    if choice in (REAL, DEMO):
        return [(MODEL.repo_id, None)]
    if Path(choice).is_dir():
        return []
    if is_repo_id(choice):
        return [(choice, None)]
    raise HubError(f"The model {choice!a} is neither a folder nor a hub id.")


def _reference(text: str) -> tuple[str, str | None]:
    try:
        reference = read_reference(text)
    except ReferenceFault as fault:
        raise HubError(f"{text!a} cannot be pulled: {fault}.") from None
    if not isinstance(reference, HubReference):
        raise HubError(f"{text!a} cannot be pulled: it is none of {', '.join(EVERYTHING)}, nor a hub id.")
    known = find_controlnet(reference.repo_id)
    return (known.repo_id if known else reference.repo_id), reference.filename


def _own_choice(listing: Listing, word: str, replaced: Iterable[str]) -> list[str]:
    """All of a pipeline in the diffusers layout, else the one checkpoint that the repository stands for."""
    if "model_index.json" in listing.files:
        unneeded = tuple(f"{part}/" for part in replaced) if word == "model" else ()
        return [
            "model_index.json",
            *(
                name
                for name in sorted(listing.files)
                if _of_pipeline(name) and not (name.startswith(unneeded) and ".safetensors" in name)
            ),
        ]
    if word == "model":
        raise HubError(
            f"The hub repository {listing.repo_id} is no model in the diffusers layout: no model_index.json."
        )
    return [choose_file(listing.repo_id, listing.files)]


def _of_pipeline(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder in PIPELINE_FOLDERS and "/" not in rest and rest.endswith(PIPELINE_SUFFIXES)
