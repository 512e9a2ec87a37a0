"""The way of a LoRA's or ControlNet's file from the machine that found it to the one that makes the picture.

On one machine a job's paths are good as they are. Where several share a store of pictures, the prepare stage
also puts there what a GPU machine cannot fetch from the hub by itself, under the hash of its content.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from models.disk import check_room
from models.errors import CheckpointError
from models.job import Job
from models.weights.header import read_header
from models.weights.reference import HubReference, ReferenceFault, read_reference
from models.weights.resolve import digest, resolve_controlnet
from worker.config import WorkerSettings
from worker.errors import StorageError
from worker.inputs.disk_quota import DiskQuota
from worker.storage.objects import Objects, SharedObjects

FOLDER = "weights"
FRESH_SECONDS = 86_400.0
"""A file that was sent less long ago is not sent again; it is kept as long as pictures are."""


class WeightTransfer:
    def __init__(self, objects: Objects, settings: WorkerSettings, quota: DiskQuota | None = None) -> None:
        self._shared = objects if isinstance(objects, SharedObjects) else None
        self._settings = settings
        self._quota = quota or DiskQuota(settings)
        self._files = settings.cache_path / "files"

    def send(self, job: Job) -> dict[str, str]:
        """Makes a prepared job's files fetchable; their SHA-256 by path. Raises StorageError."""
        if self._shared is None:
            return {}
        paths = [lora.path for lora in job.loras]
        if job.controlnet and not _is_on_hub(job):
            paths.append(job.controlnet)
        sent = {str(path): digest(path) for path in paths}
        for path, sha256 in sent.items():
            self._shared.send_file(f"{FOLDER}/{sha256}", Path(path), FRESH_SECONDS)
        return sent

    def receive(self, job: Job, sent: dict[str, str], keep_going: Callable[[], None]) -> Job:
        """The job with paths of this machine; what `keep_going` raises stops it.

        Raises StorageError, DiskFull, and ControlNetError or HubError for a ControlNet of the hub that is not
        here.
        """
        here = {path: self._find(Path(path), sha256, keep_going) for path, sha256 in sent.items()}
        loras = tuple(
            lora.model_copy(update={"path": here.get(str(lora.path), lora.path)}) for lora in job.loras
        )
        controlnet = here.get(str(job.controlnet), job.controlnet)
        if self._shared and job.controlnet_name and _is_on_hub(job):
            # Where the hub's cache lies is each machine's own affair.
            found = resolve_controlnet(job.controlnet_name, self._settings, lambda _: keep_going())
            controlnet = found.path
        return job.model_copy(update={"loras": loras, "controlnet": controlnet})

    def _find(self, path: Path, sha256: str, keep_going: Callable[[], None]) -> Path:
        if path.is_file() and digest(path) == sha256:
            return path
        kept = self._files / f"{sha256}.safetensors"
        try:
            read_header(kept)
        except CheckpointError:
            # Not there, or damaged since it was kept.
            self._fetch(sha256, kept, keep_going)
        # When it was last used: the cache is trimmed by that.
        os.utime(kept)
        return kept

    def _fetch(self, sha256: str, path: Path, keep_going: Callable[[], None]) -> None:
        def go_on() -> None:
            keep_going()
            check_room(part.parent)

        part = self._settings.cache_path / "urls" / f"{sha256}.{secrets.token_hex(8)}.part"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            if self._shared is None or not self._shared.fetch_file(f"{FOLDER}/{sha256}", part, go_on):
                raise StorageError("The file of a LoRA is no longer kept; send the request again.")
            self._quota.trim()
            part.replace(path)
        except OSError as error:
            raise StorageError(f"The file of a LoRA could not be kept here: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)


def _is_on_hub(job: Job) -> bool:
    """Whether the job's ControlNet is one that every machine finds by its name."""
    try:
        return isinstance(read_reference(job.controlnet_name or ""), HubReference)
    except ReferenceFault:
        # The file that ZTURBO_CONTROLNET names may be called anything.
        return False
