"""One request: how it fares, what became of it, and stopping it."""

from fastapi import APIRouter, Query

from app.answers import STATUS_WORDS, result_body, status_body
from app.deps import LinksDep, OwnRecord, RequestsDep
from app.errors import UnknownRequest
from app.schemas import CancelBody, ResultBody, StatusBody

router = APIRouter(prefix="/v1/requests", tags=["requests"])


@router.get("/{request_id}/status", response_model_exclude_none=True)
async def get_status(record: OwnRecord, links: LinksDep) -> StatusBody:
    """How the request fares. A failed one reads `completed`: success or failure is told by the result."""
    return status_body(record, links)


@router.get("/{request_id}/result", response_model_exclude_none=True)
async def get_result(record: OwnRecord, links: LinksDep, include_cost: bool = False) -> ResultBody:
    """What became of the request; while it is not finished, its state and no output."""
    return result_body(record, links, include_cost)


@router.post("/{request_id}/cancel", status_code=202)
async def cancel(
    record: OwnRecord,
    requests: RequestsDep,
    force: bool = Query(False, description="Stop also a running request, between two steps."),
) -> CancelBody:
    """Cancel a request that waits. One that runs goes on unless `force`; a finished one stays as it is."""
    cancellation = await requests.cancel(record.id, force)
    if cancellation is None:
        raise UnknownRequest
    return CancelBody(
        request_id=record.id, status=STATUS_WORDS[cancellation.state], outcome=cancellation.outcome
    )
