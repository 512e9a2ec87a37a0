"""Hugging Face's inference endpoint for each model: the picture's bytes, for its unmodified clients."""

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from app.answers import warnings_of
from app.deps import SettingsDep, StorageDep
from app.errors import WrongBody
from app.hf.bodies import inputs_field, read_call
from app.http.body import read_json
from app.http.in_pieces import READING, InPieces, counted
from app.prechecks import check_now
from app.routes.models import find_endpoint
from app.schemas import errors_answered
from app.submission import Submission, read_pictures
from app.translation import in_words

WARNINGS_HEADER = "x-warnings"

router = APIRouter(prefix="/hf", tags=["hugging face"])

PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {f"image/{kind}": {} for kind in ("png", "jpeg", "webp")}}
}


@router.post(
    "/{model_id:path}",
    response_class=Response,
    responses={**PICTURE, **errors_answered(408, 413, 415, 429, 504, 507)},
)
async def make_picture(model_id: str, call: Request, settings: SettingsDep, storage: StorageDep) -> Response:
    """The picture itself, which the call is held for; who hangs up cancels it."""
    submission, endpoint = Submission(call), find_endpoint(model_id)
    if call.headers.get("content-type", "").startswith("image/"):
        raise WrongBody(
            "The body is an image alone, and a prompt is needed too: send JSON with inputs and parameters."
        )
    asked = await read_json(call, settings.max_body_bytes, partial(read_call, endpoint))
    with in_words({inputs_field(endpoint): "inputs"}):
        await check_now(asked.checked, call.app)
        taken = await submission.put(endpoint.model_id, asked.body(), asked.warnings)
        record = await submission.finished(taken.request_id)
    (picture,) = await to_thread.run_sync(read_pictures, record, storage, limiter=READING)
    # The body has no room for them; a header has none for other characters or lines.
    told = " ".join(warnings_of(record)).encode("ascii", "backslashreplace").decode()
    headers = {WARNINGS_HEADER: " ".join(told.split())} if told else {}
    kind = record.images[0]["content_type"]
    return counted(InPieces(picture, headers=headers, media_type=kind), call)
