"""The entries of a request's `loras`, and the file on this machine that each names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from models.errors import ControlNetError, LoraError, ModelError
from models.job import LoraFile
from models.schema.fields import LoraInput
from models.weights.header import kind, read_header
from models.weights.hub import Progress
from models.weights.published import find_controlnet
from models.weights.reference import HubReference, UrlReference, read_reference
from models.weights.resolve import ResolvedFile, resolve_controlnet, resolve_lora
from worker.config import WorkerSettings
from worker.inputs.disk_quota import DiskQuota, HubMarker
from worker.inputs.lora_download import Downloads


class ControlNet(NamedTuple):
    """A ControlNet that a request chose, and what multiplies its `control_scale`."""

    name: str
    path: Path
    scale: float


def resolve_entries(
    entries: Sequence[LoraInput],
    settings: WorkerSettings,
    keep_going: Callable[[], None],
    quota: DiskQuota | None = None,
) -> tuple[tuple[LoraFile, ...], ControlNet | None]:
    """The LoRAs in their order, and the ControlNet if an entry is one.

    This can take minutes when a file has to be fetched; `keep_going` is called meanwhile, and what it raises
    stops it. Raises ModelError and FetchError, which name the entry.
    """
    quota = quota or DiskQuota(settings)
    loras: list[LoraFile] = []
    controlnet: ControlNet | None = None
    for number, entry in enumerate(entries):
        field = f"loras[{number}].path"
        with _naming(field):
            file, is_controlnet = _resolve(entry.path, field, settings, keep_going, quota)
            if not is_controlnet:
                loras.append(
                    LoraFile(name=entry.path, path=file.path, scale=entry.scale, sha256=file.sha256 or "")
                )
            elif controlnet is None:
                controlnet = ControlNet(file.name, file.path, entry.scale)
            elif controlnet.path == file.path:
                controlnet = controlnet._replace(scale=controlnet.scale * entry.scale)
            else:
                raise ControlNetError(
                    f"{file.name} is a second ControlNet beside {controlnet.name}; a request takes one."
                )
    return tuple(loras), controlnet


def _resolve(
    path: str, field: str, settings: WorkerSettings, keep_going: Callable[[], None], quota: DiskQuota
) -> tuple[ResolvedFile, bool]:
    """The file, and whether it is a ControlNet."""
    reference, note = read_reference(path), HubMarker(settings.cache_path)

    def on_progress(progress: Progress) -> None:
        note.on_progress(progress)
        keep_going()

    if isinstance(reference, HubReference) and find_controlnet(reference.repo_id):
        return resolve_controlnet(path, settings, lambda _: keep_going()), True
    if isinstance(reference, UrlReference):
        fetched = Downloads(settings, quota).get(path, field, read_header, keep_going)
        file = ResolvedFile(path, fetched.path, fetched.sha256)
    else:
        file = resolve_lora(path, settings, on_progress, settings.max_lora_bytes)
        if note.used(file.path):
            quota.trim()
    match kind(read_header(file.path)):
        case "controlnet":
            return file, True
        case "transformer":
            raise LoraError("This is a whole model, not a LoRA.")
    return file, False


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Puts the field before the message of a model error; a fetch error has it already."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{field}: {error}") from error
