"""Magic Prompt before the run: what the text encoder makes of a prompt, to be read and changed first."""

from fastapi import APIRouter, Request
from pydantic import ValidationError

from app.body import read_json
from app.deps import SettingsDep
from app.errors import bad_input
from app.schemas import ExpandBody, errors_answered
from app.submission import PREFERRED_WAIT_SECONDS, SubmissionDep, WaitDep
from models.inputs import ExpandInput, read_input
from worker.records import EXPAND

router = APIRouter(prefix="/v1/expand", tags=["preprocess"])


@router.post("", response_model_exclude_none=True, responses=errors_answered(408, 413, 429))
async def expand_prompt(
    request: Request, submission: SubmissionDep, settings: SettingsDep, wait: WaitDep
) -> ExpandBody:
    """The prompt that `enable_prompt_expansion` would make of this one.

    It waits in line for a GPU worker, for `wait` seconds at most, 60 unless said.
    """
    try:
        asked, _ = read_input(ExpandInput, await read_json(request, settings.max_body_bytes))
    except ValidationError as error:
        raise bad_input(error) from None
    seconds = PREFERRED_WAIT_SECONDS if wait is None else wait
    return ExpandBody(**await submission.errand(EXPAND, asked, seconds))
