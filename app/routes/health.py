"""The routes for whoever watches this server: whether it lives and can make pictures, and its metrics.

They ask for no token.
"""

import shutil
from dataclasses import asdict

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from app.deps import RequestsDep, StorageDep
from app.errors import Unavailable
from app.metrics import CONTENT_TYPE, exposition
from app.schemas import HealthBody, ReadyBody, WorkerBody
from models.command import zturbo
from worker.errors import StorageError, StoreUnavailable
from worker.queue.keys import QUEUES, Queue
from worker.queue.registry import WorkerInfo, model_note
from worker.runtime.heartbeat import TAKES_REQUESTS
from worker.storage.pictures import Storage

STORAGE_SECONDS = 3.0
"""Less than a prober waits; a store that is away keeps one call of ours longer."""

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> HealthBody:
    """The process is alive."""
    return HealthBody()


@router.head("/readyz", response_model=None, include_in_schema=False)
@router.get(
    "/readyz",
    response_model=ReadyBody,
    response_model_exclude_none=True,
    responses={503: {"model": ReadyBody, "description": "No picture can be made now"}},
)
async def readyz(requests: RequestsDep, storage: StorageDep) -> ReadyBody | JSONResponse:
    """A picture can be made and kept now: Redis, both kinds of worker and the store are there.

    Else 503 and the reasons.
    """
    workers: list[WorkerInfo] = []
    try:
        await requests.ping()
        workers = (await requests.stats()).workers
        reasons = [reason for kind in QUEUES if (reason := missing(kind, workers))]
    except StoreUnavailable as error:
        reasons = [str(error)]
    if fault := await storage_fault(storage):
        reasons.append(fault)
    body = ReadyBody(
        ready=not reasons,
        reasons=reasons,
        note=None if reasons else model_note(workers),
        workers=[WorkerBody(**asdict(worker)) for worker in workers],
    )
    if body.ready:
        return body
    unavailable = Unavailable(" ".join(reasons))
    return JSONResponse(unavailable.body() | body.wire(), unavailable.status, unavailable.headers)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, requests: RequestsDep) -> Response:
    """Metrics in Prometheus's text format, read from Redis at this moment."""
    disk_free = shutil.disk_usage(request.app.state.settings.data_dir).free
    try:
        stats = await requests.stats()
    except StoreUnavailable:
        stats = None
    return Response(exposition(stats, disk_free), media_type=CONTENT_TYPE)


async def storage_fault(storage: Storage) -> str | None:
    """Why no picture can be kept or fetched now, in a sentence; None when one can."""
    with anyio.move_on_after(STORAGE_SECONDS):
        try:
            await anyio.to_thread.run_sync(storage.check, abandon_on_cancel=True)
        except StorageError as error:
            return str(error)
        return None
    return f"The store of pictures (ZTURBO_STORAGE) has not answered for {STORAGE_SECONDS:.0f} s."


def missing(kind: Queue, workers: list[WorkerInfo]) -> str | None:
    """Why no worker of this kind can work now, in a sentence; None when one can."""
    states = {worker.state for worker in workers if worker.kind == kind}
    if states.intersection(TAKES_REQUESTS):
        return None
    if "starting" in states:
        return "A gpu worker is loading its model." if kind == "gpu" else f"An {kind} worker is starting."
    details = [worker.detail for worker in workers if worker.kind == kind and worker.detail]
    if details:
        return f"No {kind} worker could be set up: {details[0]}"
    return f"No {kind} worker is running; `{zturbo()} worker {kind}` starts one."
