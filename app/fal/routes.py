"""fal's queue protocol, and its call that waits, on the same records: its public clients work unmodified."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.answers import failure_of
from app.auth import Owner
from app.deps import LinksDep, OwnRecord, RequestsDep, StorageDep, find_own
from app.errors import NothingHere
from app.fal import bodies
from app.http.in_pieces import READING, JsonInPieces, counted
from app.links import Links
from app.submission import WEBHOOK, Submission
from worker.queue.follow import follow
from worker.queue.record import FINAL_STATES, Record
from worker.queue.requests import Taken
from worker.storage.pictures import Storage

EARLY = {"detail": "Request is still in progress"}
LATE = "The picture was not begun in time, and is not made any more; use the queue instead."
ID_HEADER = "x-fal-request-id"
FAL_WEBHOOK = replace(WEBHOOK, name="fal_webhook")

PatienceHeader = Annotated[float | None, Header(alias="x-fal-request-timeout", ge=0)]

router = APIRouter(prefix=f"/{bodies.OWNER}/{bodies.APP}", tags=["fal"], include_in_schema=False)
requests_router = APIRouter(prefix="/requests/{request_id}", tags=["fal"], include_in_schema=False)
run_router = APIRouter(
    prefix=f"{bodies.RUN_PATH}/{bodies.OWNER}/{bodies.APP}", tags=["fal"], include_in_schema=False
)


@router.post("/{model:path}")
async def submit(model: str, call: Request) -> JSONResponse:
    """Queue one request."""
    submission = Submission(call)
    taken = await _submit(model, submission, submission.webhook(FAL_WEBHOOK))
    body = {"request_id": taken.request_id, **bodies.request_links(taken.request_id, submission.links)}
    return _answer(body | {"status": "IN_QUEUE", "queue_position": taken.position}, 200, taken.request_id)


@run_router.post("/{model:path}")
async def run(
    model: str,
    call: Request,
    requests: RequestsDep,
    storage: StorageDep,
    patience: PatienceHeader = None,
) -> JSONResponse:
    """The result itself, for a caller who does not queue; cancelled when it is not begun in time.

    As fal documents it, `x-fal-request-timeout` says how long it may take to begin; what has begun goes on.
    """
    submission = Submission(call)
    taken = await _submit(model, submission, None)
    request_id = taken.request_id
    record = await submission.outcome(request_id, patience)
    while record is not None and record.state not in FINAL_STATES:
        # Not by force: what has begun meanwhile goes on.
        cancellation = await requests.cancel(request_id)
        is_begun = cancellation is not None and cancellation.state != "cancelled"
        record = await submission.outcome(request_id, None) if is_begun else None
    if record is None:
        answer = _answer({"detail": LATE, "message": LATE}, 504, request_id)
        # By this the clients know that there is no sense in sending the same again.
        answer.headers["x-fal-request-timeout-type"] = "user"
        return answer
    return await _result(record, submission.links, storage, call)


@requests_router.get("/status")
async def get_status(record: OwnRecord, links: LinksDep, logs: bool = False) -> JSONResponse:
    """How the request fares; a failed one is COMPLETED, with `error`."""
    status = 200 if record.state in FINAL_STATES else 202
    return _answer(bodies.status_body(record, links, logs), status, record.id)


async def _name_request(record: OwnRecord, response: Response) -> None:
    """A stream's headers are sent before its own code runs."""
    response.headers[ID_HEADER] = record.id


@requests_router.get(
    "/status/stream", response_class=EventSourceResponse, dependencies=[Depends(_name_request)]
)
async def stream_status(
    record: OwnRecord, requests: RequestsDep, links: LinksDep, logs: bool = False
) -> AsyncIterator[ServerSentEvent]:
    """One status body for each change, to the last."""
    told: dict[str, Any] = {}
    async for moment in follow(requests, record.id):
        body = bodies.status_body(moment.record, links, logs)
        # Without logs a step changes nothing.
        if body != told:
            told = body
            yield ServerSentEvent(data=body)


@requests_router.get("")
async def get_result(record: OwnRecord, links: LinksDep, storage: StorageDep, call: Request) -> JSONResponse:
    """The pictures, or why there are none."""
    if record.state not in FINAL_STATES:
        return _answer(EARLY, 400, record.id)
    return await _result(record, links, storage, call)


@requests_router.put("/cancel")
async def cancel(request_id: str, owner: Owner, requests: RequestsDep) -> JSONResponse:
    """Stop the request, also while it runs."""
    record = await find_own(request_id, owner, requests)
    cancellation = record and await requests.cancel(record.id, force=True)
    if record is None or cancellation is None:
        return JSONResponse({"status": "NOT_FOUND"}, 404)
    if record.state in FINAL_STATES or cancellation.state != "cancelled":
        return _answer({"status": "ALREADY_COMPLETED"}, 400, record.id)
    return _answer({"status": "CANCELLATION_REQUESTED"}, 202, record.id)


# A client that kept the whole model id finds its requests too.
for prefix in ("", "/{model:path}"):
    router.include_router(requests_router, prefix=prefix)


async def _submit(name: str, submission: Submission, webhook: str | None) -> Taken:
    """Puts the body in line for one of MODELS. Raises NothingHere, and what `read` and `put` do."""
    model = bodies.MODELS.get(name)
    if model is None:
        raise NothingHere(bodies.OTHER_MODEL)
    checked, warnings = await submission.read(model.input_model)
    warnings += checked.warnings()
    return await submission.put(model.answered_by, checked.ours(), warnings, webhook, bodies.DIALECT)


async def _result(record: Record, links: Links, storage: Storage, call: Request) -> JSONResponse:
    if failure := failure_of(record):
        return _answer(bodies.fault_body(failure), bodies.fault_status(failure), record.id)
    if record.input.get("sync_mode"):
        uris = await to_thread.run_sync(_data_uris, record, storage, limiter=READING)
        body = bodies.result_body(record, links, uris)
        return counted(JsonInPieces(body, 200, {ID_HEADER: record.id}), call)
    return _answer(bodies.result_body(record, links), 200, record.id)


def _answer(body: dict[str, Any], status: int, request_id: str) -> JSONResponse:
    return JSONResponse(body, status, {ID_HEADER: request_id})


def _data_uris(record: Record, storage: Storage) -> list[str] | None:
    """None when a picture has expired."""
    uris = []
    for image in record.images:
        data = storage.read(image["file_id"], image["name"])
        if data is None:
            return None
        uris.append(f"data:{image['content_type']};base64,{base64.b64encode(data).decode()}")
    return uris
