"""What goes into a picture, before it is made: the control map of an image, and the LoRAs that there are."""

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from pydantic import ValidationError

from app.answers import file_url
from app.body import read_json
from app.deps import LinksDep, SettingsDep, StorageDep
from app.errors import bad_field, bad_input
from app.schemas import LoraBody, LorasBody, MapBody, errors_answered
from models.errors import SizeError
from models.inputs import PreprocessInput, read_input
from models.shelf import find_loras
from worker.errors import FetchError, ImageError

NOT_YET = (
    "preprocess: a {kind} map is made on the GPU, together with the picture; submit a request with it, "
    "and its result has the map as control_image."
)

MAPPING = CapacityLimiter(4)
"""Each may wait half a minute for a slow host, and then needs 600 MB for a moment; other routes' threads are
others."""

router = APIRouter(prefix="/v1", tags=["preprocess"])


@router.post("/preprocess", responses=errors_answered(413))
async def make_control_map(
    request: Request, settings: SettingsDep, storage: StorageDep, links: LinksDep
) -> MapBody:
    """The map that a request with this image, `preprocess` and `image_size` would be guided by."""
    # Imported now: OpenCV would slow the start of every command.
    from worker.maps import make_map

    try:
        asked, _ = read_input(PreprocessInput, await read_json(request, settings.max_body_bytes))
    except ValidationError as error:
        raise bad_input(error) from None
    if asked.preprocess not in ("none", "canny"):
        raise bad_field("preprocess", NOT_YET.format(kind=asked.preprocess))
    wanted = asked.image_url, asked.preprocess, asked.image_size
    try:
        made = await to_thread.run_sync(make_map, *wanted, settings, storage, limiter=MAPPING)
    except (FetchError, ImageError, SizeError) as error:
        raise bad_field(str(error).partition(":")[0], str(error)) from None
    return MapBody(control_image=file_url(made, links), width=made["width"], height=made["height"])


@router.get("/loras")
def list_loras(settings: SettingsDep) -> LorasBody:
    """The LoRAs on this machine, in its LoRA folder and in the hub's cache, with what their files say."""
    return LorasBody(loras=[LoraBody.model_validate(lora) for lora in find_loras(settings)])
