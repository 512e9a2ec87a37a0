"""The Hugging Face Hub: what it has, what its cache on this machine has, and bringing files to the cache.

HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean everywhere. Every failure is a HubError
(see `models.weights.hub_errors`).
"""

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils.tqdm import tqdm

from models.errors import HubError
from models.weights.download import FIRST_PAUSE, RETRIED_STATUSES, TRIES, fetch_blob
from models.weights.hub_errors import hub_errors
from models.weights.published import find_controlnet
from models.weights.reference import SUFFIX, is_file_name, is_repo_id

MAIN = "main"
MAX_NAMED_FILES = 12
"""Files of a repository that an error message lists."""


class Progress(NamedTuple):
    """How much of one file is here, in bytes."""

    repo_id: str
    filename: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]
"""What it raises stops the download; the next one goes on from there."""


@dataclass(frozen=True)
class RemoteFile:
    size: int
    sha256: str | None
    """None for a small text file: the hub has no SHA-256 of it."""


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repo_id: str
    commit: str
    files: dict[str, RemoteFile]


@dataclass(frozen=True)
class HubFile:
    """A file in the cache."""

    path: Path
    repo_id: str
    filename: str
    commit: str
    sha256: str | None

    @property
    def name(self) -> str:
        return f"{self.repo_id}/{self.filename}"


def repo_file(
    repo_id: str,
    filename: str | None = None,
    on_progress: OnProgress | None = None,
    max_bytes: int | None = None,
) -> HubFile:
    """One file of a repository's newest commit, downloaded if it is not here.

    Without a `filename` the file is chosen by `choose_file`. A hub that does not answer is no error when the
    cache has the file.
    """
    if not is_repo_id(repo_id) or (filename and not is_file_name(filename)):
        raise HubError(f"{repo_id!a} is not a hub id like 'owner/repo', or the file's name is not plain.")
    try:
        listing = list_files(repo_id)
    except HubError:
        if found := cached_file(repo_id, filename):
            return found
        raise
    return fetch(listing, filename or choose_file(repo_id, listing.files), on_progress, max_bytes)


def choose_file(repo_id: str, names: Collection[str]) -> str:
    """The checkpoint that a repository stands for when no file is named.

    The only safetensors file; in a known ControlNet repository with several, the newest one that was
    distilled to 8 steps and is neither lite nor for tiles. Raises HubError, listing the files, when that does
    not decide.
    """
    checkpoints = sorted(name for name in names if name.endswith(SUFFIX) and is_file_name(name))
    if not checkpoints:
        raise HubError(f"The hub repository {repo_id} has no {SUFFIX} file.")
    if len(checkpoints) == 1:
        return checkpoints[0]
    if find_controlnet(repo_id):
        full = [name for name in checkpoints if "lite" not in name.lower() and "tile" not in name.lower()]
        if distilled := [name for name in full if "8steps" in name]:
            return max(distilled, key=_date)
    raise HubError(
        f"The hub repository {repo_id} has several {SUFFIX} files; "
        f"name one as {repo_id}/FILE: {_listed(checkpoints)}."
    )


def list_files(repo_id: str) -> Listing:
    """What the newest commit of a repository holds. Asks the hub, never the cache."""
    with hub_errors(repo_id):
        info = _retried(
            lambda: HfApi(endpoint=constants.ENDPOINT).model_info(
                repo_id, revision=MAIN, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        )
    files = {
        sibling.rfilename: RemoteFile(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in info.siblings or ()
    }
    return Listing(repo_id, info.sha or MAIN, files)


def fetch(
    listing: Listing, filename: str, on_progress: OnProgress | None = None, max_bytes: int | None = None
) -> HubFile:
    """A file of `listing`, from the cache or else from the hub, verified on arrival."""
    repo_id = listing.repo_id
    file = listing.files.get(filename)
    if file is None or not is_file_name(filename):
        names = sorted(name for name in listing.files if name.endswith(SUFFIX))
        raise HubError(f"The hub repository {repo_id} has no file {filename!a}; it has: {_listed(names)}.")
    if max_bytes is not None and file.size > max_bytes:
        raise HubError(
            f"{repo_id}/{filename} has {file.size / 1e6:.1f} MB; at most {max_bytes / 1e6:.1f} MB are taken."
        )
    if (at_commit := _repo_folder(repo_id) / "snapshots" / listing.commit / filename).is_file():
        return _hub_file(at_commit, repo_id, filename)

    def on_bytes(done: int) -> None:
        if on_progress:
            on_progress(Progress(repo_id, filename, done, file.size))

    with hub_errors(repo_id, filename):
        if file.sha256:
            fetch_blob(
                hf_hub_url(repo_id, filename, revision=listing.commit, endpoint=constants.ENDPOINT),
                _repo_folder(repo_id) / "blobs" / file.sha256,
                _lock_path(repo_id, file.sha256),
                file.size,
                file.sha256,
                on_bytes,
            )
        path = _retried(
            lambda: hf_hub_download(repo_id, filename, endpoint=constants.ENDPOINT, tqdm_class=_NoBar)
        )
    on_bytes(file.size)
    return _hub_file(Path(path), repo_id, filename)


def cached_file(repo_id: str, filename: str | None = None) -> HubFile | None:
    """A file that is on this machine, without asking the hub; None when it is not."""
    for snapshot in cached_snapshots(repo_id):
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
        if filename is None and any(name.endswith(SUFFIX) for name in names):
            return _hub_file(snapshot / (chosen := choose_file(repo_id, names)), repo_id, chosen)
        if filename in names:
            return _hub_file(snapshot / filename, repo_id, filename)
    return None


def cached_snapshots(repo_id: str) -> list[Path]:
    """The commits that are here, wholly or in part: the last known newest first, then by age."""
    folder = _repo_folder(repo_id)
    main = folder / "refs" / MAIN
    newest = main.read_text() if main.is_file() else ""
    snapshots = [path for path in (folder / "snapshots").glob("*") if path.is_dir()]
    return sorted(snapshots, key=lambda path: (path.name != newest, -path.stat().st_mtime))


def evict(repo_id: str, path: Path | None, unfinished_seconds: float) -> None:
    """Take a file out of the cache; its bytes go too unless another commit here has them.

    Downloads of the repository that nobody has gone on with for so long are deleted as well, and with no
    `path` nothing else.
    """
    if path is not None:
        blob = path.resolve()
        path.unlink(missing_ok=True)
        linked = {
            each.resolve() for each in (_repo_folder(repo_id) / "snapshots").rglob("*") if each.is_symlink()
        }
        if blob not in linked:
            blob.unlink(missing_ok=True)
    for part in (_repo_folder(repo_id) / "blobs").glob("*.incomplete"):
        if time.time() - part.stat().st_mtime > unfinished_seconds:
            part.unlink(missing_ok=True)


class _NoBar(tqdm):
    """A progress bar that draws nothing, in place of huggingface_hub's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]


def _hub_file(path: Path, repo_id: str, filename: str) -> HubFile:
    commit = path.relative_to(_repo_folder(repo_id) / "snapshots").parts[0]
    # The cache names a large file by its SHA-256, a small one by git's shorter id.
    blob = path.resolve().name
    return HubFile(path, repo_id, filename, commit, blob if re.fullmatch("[0-9a-f]{64}", blob) else None)


def _repo_folder(repo_id: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")


def _lock_path(repo_id: str, etag: str) -> Path:
    folder = repo_folder_name(repo_id=repo_id, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / ".locks" / folder / f"{etag}.lock"


def _date(name: str) -> str:
    """The year and month in a file's name, as in `…-2.1-2602-8steps.safetensors`."""
    dated = re.search(r"-(\d{4})-8steps", name)
    return dated[1] if dated else ""


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMED_FILES
    return ", ".join(names[:MAX_NAMED_FILES]) + (f" and {more} more" if more > 0 else "") if names else "none"


def _retried(ask: Callable[[], Any]) -> Any:
    """`ask()`, again after a pause while the hub is busy; a hub that cannot be reached is not waited for."""
    for attempt in range(TRIES - 1):
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code not in RETRIED_STATUSES:
                raise
        time.sleep(FIRST_PAUSE * 2**attempt)
    return ask()
