"""fal's queue protocol on the same records: its public clients work here with another host name."""

import base64
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from app import fal
from app.body import read_json
from app.deps import LinksDep, OwnRecord, RequestsDep, SettingsDep, StorageDep
from app.errors import bad_input
from app.submission import SubmissionDep, WebhookQuery
from models.inputs import read_input
from worker.following import follow
from worker.records import FINAL_STATES, Record
from worker.storage import Storage

EARLY = {"detail": "Request is still in progress"}

router = APIRouter(prefix=f"/{fal.OWNER}/{fal.APP}", tags=["fal"], include_in_schema=False)
requests_router = APIRouter(prefix="/requests/{request_id}", tags=["fal"], include_in_schema=False)


@router.post(f"/{fal.MODEL_PATH}")
async def submit(
    request: Request,
    submission: SubmissionDep,
    settings: SettingsDep,
    links: LinksDep,
    fal_webhook: WebhookQuery = None,
) -> JSONResponse:
    """Queue one request."""
    try:
        asked, warnings = read_input(fal.FalInput, await read_json(request, settings.max_body_bytes))
    except ValidationError as error:
        raise bad_input(error) from None
    taken = await submission.take(fal.MODEL_ID, asked.ours(), warnings, fal_webhook, fal.DIALECT)
    body = {"request_id": taken.request_id, **fal.request_links(taken.request_id, links)}
    return _answer(body | {"status": "IN_QUEUE", "queue_position": taken.position}, 200, taken.request_id)


@requests_router.get("/status")
async def get_status(record: OwnRecord, links: LinksDep) -> JSONResponse:
    """How the request fares; a failed one is COMPLETED, with `error`."""
    return _answer(fal.status_body(record, links), 200 if record.state in FINAL_STATES else 202, record.id)


@requests_router.get("/status/stream", response_class=EventSourceResponse)
async def stream_status(
    record: OwnRecord, requests: RequestsDep, links: LinksDep
) -> AsyncIterator[ServerSentEvent]:
    """One status body for each change, to the last."""
    async for moment in follow(requests, record.id):
        yield ServerSentEvent(data=fal.status_body(moment.record, links))


@requests_router.get("")
async def get_result(record: OwnRecord, links: LinksDep, storage: StorageDep) -> JSONResponse:
    """The pictures, or why there are none."""
    if record.state not in FINAL_STATES:
        return _answer(EARLY, 400, record.id)
    if record.state != "succeeded":
        return _answer(fal.fault_body(record), 422, record.id)
    urls = await run_in_threadpool(_data_uris, record, storage) if record.input.get("sync_mode") else None
    return _answer(fal.result_body(record, links, urls), 200, record.id)


@requests_router.put("/cancel")
async def cancel(record: OwnRecord, requests: RequestsDep) -> JSONResponse:
    """Stop the request, also while it runs."""
    cancellation = await requests.cancel(record.id, force=True)
    if cancellation is None:
        return _answer({"status": "NOT_FOUND"}, 404, record.id)
    if record.state in FINAL_STATES or cancellation.state != "cancelled":
        return _answer({"status": "ALREADY_COMPLETED"}, 400, record.id)
    return _answer({"status": "CANCELLATION_REQUESTED"}, 202, record.id)


# A client that kept the whole model id finds its requests too.
for prefix in ("", f"/{fal.MODEL_PATH}"):
    router.include_router(requests_router, prefix=prefix)


def _answer(body: dict[str, Any], status: int, request_id: str) -> JSONResponse:
    return JSONResponse(body, status, {"x-fal-request-id": request_id})


def _data_uris(record: Record, storage: Storage) -> list[str] | None:
    """None when a picture has expired."""
    uris = []
    for image in record.images:
        data = storage.read(image["file_id"], image["name"])
        if data is None:
            return None
        uris.append(f"data:{image['content_type']};base64,{base64.b64encode(data).decode()}")
    return uris
