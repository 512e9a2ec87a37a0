"""The route of Magic Prompt alone: a prompt rewritten, to be read and changed before the run."""

from fastapi import APIRouter, Request

from app.schemas import ExpandBody, errors_answered
from app.submission import Submission
from models.schema.inputs import ExpandInput
from worker.queue.record import EXPAND

router = APIRouter(prefix="/v1/expand", tags=["preprocess"])


@router.post("", response_model_exclude_none=True, responses=errors_answered(408, 413, 415, 429))
async def expand_prompt(call: Request) -> ExpandBody:
    """The prompt that `enable_prompt_expansion` would make of this one.

    It waits in line for a GPU worker, for `wait` seconds at most where it is said.
    """
    submission = Submission(call)
    asked, _ = await submission.read(ExpandInput)
    return ExpandBody(**await submission.run(EXPAND, asked))
