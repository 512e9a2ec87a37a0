"""The routes for what goes into a picture: the control map of an image, and the list of LoRAs."""

from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request

from app.answers import file_url
from app.config import Settings
from app.deps import SettingsDep, StorageDep
from app.errors import bad_field
from app.schemas import LoraBody, LorasBody, MapBody, errors_answered
from app.submission import Submission
from models.errors import SizeError
from models.schema.inputs import PreprocessInput
from models.weights.installed_loras import find_loras
from worker.errors import FetchError, ImageError
from worker.queue.record import CONTROL_MAP
from worker.storage.pictures import Storage, new_file_id

MAPPING = CapacityLimiter(4)
"""Each may wait half a minute for a slow host, and then needs 600 MB for a moment; other routes' threads are
others."""

router = APIRouter(prefix="/v1", tags=["preprocess"])


@router.post("/preprocess", responses=errors_answered(408, 413, 415, 429, 507))
async def make_control_map(call: Request, settings: SettingsDep, storage: StorageDep) -> MapBody:
    """The map that a request with this image, `preprocess` and `image_size` would be guided by.

    Depth and pose wait in line for a GPU worker, for `wait` seconds at most where it is said.
    """
    submission = Submission(call)
    asked, _ = await submission.read(PreprocessInput)
    if asked.preprocess in ("depth", "pose"):
        made = (await submission.run(CONTROL_MAP, asked))["control_image"]
    else:
        made = await to_thread.run_sync(_make_map, asked, settings, storage, limiter=MAPPING)
    return MapBody(control_image=file_url(made, submission.links), width=made["width"], height=made["height"])


def _make_map(asked: PreprocessInput, settings: Settings, storage: Storage) -> dict[str, Any]:
    """Makes and keeps a map that needs no GPU; its file. Raises BadInput, StorageError, DiskFull."""
    # Imported now: OpenCV would slow the start of every command.
    from worker.inputs.input_image import read_source
    from worker.stages.control_map import control_source
    from worker.stages.output import keep_control

    storage.check_room()
    try:
        image = read_source(asked.image_url, "image_url", settings, storage)
        return keep_control(control_source(image, asked, settings), new_file_id(), storage)
    except (FetchError, ImageError, SizeError) as error:
        raise bad_field(str(error).partition(":")[0], str(error)) from None


@router.get("/loras")
def list_loras(settings: SettingsDep) -> LorasBody:
    """The LoRAs on this machine, in its LoRA folder and in the hub's cache, with what their files say."""
    return LorasBody(loras=[LoraBody.model_validate(lora) for lora in find_loras(settings)])
