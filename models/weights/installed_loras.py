"""The LoRAs on this machine: in the LoRA folder, in the hub's cache and with the demo model.

Only their headers are read.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from models.config import ModelSettings
from models.errors import CheckpointError
from models.weights import demo
from models.weights.header import Header, kind, read_header
from models.weights.resolve import DEMO, model_choice

MOST_WORDS = 10
MAX_TEXT_CHARACTERS = 200
"""The most characters that are shown of one thing that a file says of itself."""

KEPT_FILES = 4096
"""What this many files say is kept in memory, so that a file is read again only when it has changed."""

_DOWN = re.compile(r"\blora[._]?(A|down)\b")


@dataclass(frozen=True)
class InstalledLora:
    """One LoRA as a caller may name it, and what its file says."""

    path: str
    """What a caller writes in `loras[].path` to have it."""
    source: str
    """`folder`, `hub` or `demo`."""
    size: int
    """Bytes."""
    rank: int | None
    """The rank of its largest matrices; None for a format without ranks, such as LoKr."""
    base_model: str | None
    trigger_words: tuple[str, ...]


class _Said(NamedTuple):
    """What the file of a LoRA says of itself; the fields are those of `InstalledLora`."""

    rank: int | None
    base_model: str | None
    trigger_words: tuple[str, ...]


def find_loras(settings: ModelSettings) -> list[InstalledLora]:
    """All LoRAs by name; files that are no LoRA, or broken, are left out."""
    found = [*_in_folder(settings.loras_path, "folder"), *_in_hub_cache()]
    if model_choice(settings) == DEMO:
        found += _in_folder(demo.LORAS, "demo")
    return sorted(filter(None, (_look(*entry) for entry in found)), key=lambda lora: lora.path.casefold())


def _in_folder(folder: Path, source: str) -> Iterator[tuple[str, str, Path]]:
    for pattern in ("*.safetensors", "*/*.safetensors"):
        for path in folder.glob(pattern):
            yield path.relative_to(folder).as_posix(), source, path


def _in_hub_cache() -> Iterator[tuple[str, str, Path]]:
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError):
        return
    for repo in repos:
        for revision in repo.revisions:
            # Older revisions stay in the cache; the one that `main` names is what a request would get.
            for file in revision.files if "main" in revision.refs and repo.repo_type == "model" else ():
                if file.file_name.endswith(".safetensors"):
                    name = file.file_path.relative_to(revision.snapshot_path).as_posix()
                    yield f"{repo.repo_id}/{name}", "hub", file.file_path


def _look(path: str, source: str, file: Path) -> InstalledLora | None:
    try:
        # A name that is no text can stand in no answer, and in no request.
        path.encode()
        stat = file.stat()
    except (OSError, UnicodeEncodeError):
        return None
    said = _read(file, stat.st_size, stat.st_mtime_ns)
    return InstalledLora(path, source, stat.st_size, *said) if said else None


@functools.lru_cache(maxsize=KEPT_FILES)
def _read(file: Path, size: int, mtime_ns: int) -> _Said | None:
    """None for a file that is no LoRA, or broken."""
    try:
        header = read_header(file)
    except CheckpointError:
        return None
    if kind(header) != "lora":
        return None
    return _Said(_rank(header), _base_model(header.metadata), _words(header.metadata))


def _rank(header: Header) -> int | None:
    """The down matrix of a pair is (rank, features in)."""
    ranks = [info.shape[0] for name, info in header.tensors.items() if _DOWN.search(name) and info.shape]
    return max(ranks, default=None)


def _base_model(metadata: Mapping[str, str]) -> str | None:
    """The model it was made for, in the field of sd-scripts, ModelSpec or ai-toolkit, whichever there is."""
    for field in ("ss_base_model_version", "modelspec.architecture", "base_model", "ss_sd_model_name"):
        if text := metadata.get(field):
            return text[:MAX_TEXT_CHARACTERS]
    return None


def _words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Words that the LoRA was trained to answer: stated ones, else the tags it saw most often."""
    for field in ("modelspec.trigger_phrase", "trigger_words", "trigger_word"):
        if text := metadata.get(field):
            return tuple(word.strip()[:MAX_TEXT_CHARACTERS] for word in text.split(",")[:MOST_WORDS])
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts: dict[str, int] = {}
        for tags in folders.values():
            for tag, count in tags.items():
                counts[tag.strip()] = counts.get(tag.strip(), 0) + int(count)
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        return ()
    often = sorted(counts, key=lambda tag: -counts[tag])[:MOST_WORDS]
    return tuple(tag[:MAX_TEXT_CHARACTERS] for tag in often)
