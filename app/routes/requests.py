"""The routes of one request, which tell of it, stop it and forget it; and the caller's list of requests."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from app.answers import STATUS_WORDS, request_body, result_body, status_body
from app.auth import Owner
from app.deps import LinksDep, OwnRecord, RequestsDep, StorageDep
from app.errors import NotFinished, UnknownRequest
from app.schemas import CancelBody, DeletedBody, RequestBody, RequestsBody, ResultBody, StatusBody
from worker.queue.record import FINAL_STATES, State

MAX_PAGE = 100

router = APIRouter(prefix="/v1/requests", tags=["requests"])


@router.get("", response_model_exclude_unset=True)
async def list_requests(
    owner: Owner,
    requests: RequestsDep,
    links: LinksDep,
    status: Annotated[
        State | None, Query(description="Only those that are so, in the result's words.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}$", description="A `next_cursor`.")] = None,
) -> RequestsBody:
    """The caller's own requests, newest first, each with the body that made it."""
    page = await requests.list_owned(owner, status, limit, cursor)
    return RequestsBody(
        requests=[request_body(record, links) for record in page.records], next_cursor=page.cursor
    )


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


@router.get("/{request_id}", response_model_exclude_none=True)
async def get_request(record: OwnRecord, links: LinksDep) -> RequestBody:
    """One request as the list has it: what became of it, and the body that made it."""
    return request_body(record, links)


@router.delete("/{request_id}")
async def delete_request(record: OwnRecord, requests: RequestsDep, storage: StorageDep) -> DeletedBody:
    """Forget a finished request and its pictures, at once; an unfinished one is to be cancelled first."""
    if record.state not in FINAL_STATES:
        raise NotFinished
    # Before the record: a store that is away makes this a 503, which the caller sends again.
    for file_id in record.file_ids:
        await run_in_threadpool(storage.delete, file_id)
    await requests.delete(record.id)
    return DeletedBody(request_id=record.id)
