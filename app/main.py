"""The HTTP application, made from settings alone."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from app.auth import check_exposure, keyless, owner
from app.config import Settings
from app.errors import (
    ApiError,
    BadInput,
    InsufficientStorage,
    NothingHere,
    TooManyRequests,
    Unavailable,
    WrongMethod,
    faults,
)
from app.fal import proxy as fal_proxy
from app.fal import routes as fal
from app.fal import storage as fal_storage
from app.fal.bodies import OTHER_MODEL
from app.hf import routes as hf
from app.http.access import AccessLog
from app.http.cors import Cors, read_origins
from app.http.in_flight import BytesInFlight
from app.http.multipart import ENVELOPE_BYTES
from app.http.plain_path import PlainPath
from app.http.trusted_proxy import TrustedProxy, read_networks
from app.openai import routes as openai
from app.openapi import describe
from app.routes import (
    about,
    api_page,
    documents,
    events,
    expand,
    files,
    health,
    models,
    playground,
    preprocess,
    requests,
    stats,
    uploads,
    webhooks,
)
from app.schemas import errors_answered
from app.webhooks import Webhooks
from models.errors import DiskFull
from worker.cancellation import cancelled
from worker.errors import KeyReused, Refused, StorageError, StoreUnavailable
from worker.queue.requests import RequestStore
from worker.secret import Secret
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

DESCRIPTION = "Z-Image-Turbo with ControlNet-Union and LoRA: submit a request, follow it, fetch the picture."
API_VERSION = "1"
STORE_PAUSE_SECONDS = 1.0

COMMON_ERRORS = errors_answered(401, 403, 404, 422, 500, 503)

ANSWERS: dict[type[Exception], Callable[[Any], ApiError]] = {
    ApiError: lambda error: error,
    RequestValidationError: lambda error: faults(error.errors()),
    Refused: lambda error: TooManyRequests(str(error), error.retry_after),
    KeyReused: lambda error: BadInput(str(error)),
    StoreUnavailable: lambda error: Unavailable(str(error)),
    StorageError: lambda error: Unavailable(str(error)),
    DiskFull: lambda error: InsufficientStorage(str(error)),
}
"""What the caller is told for each exception that a route lets through; app.http.access has the rest."""

_PRIVATE = (
    models.router,
    requests.router,
    events.router,
    uploads.router,
    preprocess.router,
    expand.router,
    stats.router,
    fal.router,
    fal.run_router,
    fal_storage.router,
    fal_proxy.router,
    webhooks.router,
    openai.router,
    hf.router,
)

_OPEN = (
    fal_storage.upload_router,
    openai.open_router,
    files.router,
    health.router,
    about.router,
    playground.router,
    documents.router,
    api_page.router,
)
"""What a browser asks for, which sends no key."""

log = logging.getLogger("zturbo")


def create_app(settings: Settings) -> FastAPI:
    """Raises ConfigError when these settings would open the server to strangers."""
    keys = check_exposure(settings)
    app = FastAPI(
        title="zturbo",
        version=API_VERSION,
        description=DESCRIPTION,
        # Several clients take a redirect for an error.
        redirect_slashes=False,
        # Swagger's page loads its scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.keys = keys
    app.state.requests = RequestStore.connect(settings)
    app.state.storage = Storage(open_objects(settings))
    app.state.secret = Secret(settings.data_dir)
    app.state.webhooks = Webhooks(app.state.requests, settings, app.state.secret)
    if keys.open:
        log.warning("No keys are configured: any token is taken, from this machine only.")

    for router in _PRIVATE:
        app.include_router(router, dependencies=[Depends(owner)], responses=COMMON_ERRORS)
    for router in _OPEN:
        app.include_router(router, dependencies=[Depends(keyless)])

    if networks := read_networks(settings.trusted_proxies):
        app.add_middleware(TrustedProxy, networks=networks)
    # A body of the largest size always fits into the half that one key may have.
    largest = max(settings.max_body_bytes, settings.max_image_bytes + ENVELOPE_BYTES)
    bound = max(settings.max_in_flight_bytes, 2 * largest)
    app.add_middleware(BytesInFlight, limit=bound)
    app.add_middleware(PlainPath)
    app.add_middleware(AccessLog)
    origins = read_origins(settings.allow_origins)
    if not keys.open:
        # Outermost, so that every answer can be read, and no preflight needs a key.
        app.add_middleware(Cors, origins=origins)
    for kind, to_error in ANSWERS.items():
        app.add_exception_handler(kind, _handler(to_error))
    app.add_exception_handler(HTTPException, _answer_routing)  # type: ignore[arg-type]  # called for these alone
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _handler(to_error: Callable[[Any], ApiError]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        return to_error(error).response()

    return answer


async def _answer_routing(request: Request, error: HTTPException) -> Response:
    if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        if request.url.path.startswith("/fal"):
            return NothingHere(OTHER_MODEL).response()
        return NothingHere("There is nothing at this path; / tells where the documentation is.").response()
    # Starlette's own Allow has the methods of one route, and a path may have several.
    routes = iter_route_contexts(request.app.routes)
    matching = (route for route in routes if compile_path(route.path or "")[0].match(request.url.path))
    return WrongMethod(sorted({method for route in matching for method in route.methods or ()})).response()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.webhooks.start()
    telling = asyncio.create_task(_tell_storage(app.state.requests))
    yield
    await cancelled(telling)
    await app.state.webhooks.stop()
    await app.state.requests.close()


async def _tell_storage(requests: RequestStore) -> None:
    """Once, as soon as Redis is there."""
    while True:
        try:
            await requests.tell_storage()
            return
        except StoreUnavailable:
            await asyncio.sleep(STORE_PAUSE_SECONDS)
