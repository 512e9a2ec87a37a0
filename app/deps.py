"""The dependencies of the routes, which `create_app` puts on the application's state.

Every dependency is async: FastAPI hands a plain function to a thread, which costs more than Redis does.
"""

from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from app.config import Settings
from app.errors import UnknownRequest
from app.links import Links, links_of
from worker import logs
from worker.queue.record import Record
from worker.queue.requests import RequestStore
from worker.secret import Secret
from worker.storage.pictures import Storage


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _requests(request: Request) -> RequestStore:
    requests: RequestStore = request.app.state.requests
    return requests


async def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


async def _secret(request: Request) -> Secret:
    secret: Secret = request.app.state.secret
    return secret


async def _links(request: Request) -> Links:
    return links_of(request)


async def _has_room(request: Request) -> None:
    """Before the body is read; raises DiskFull."""
    await run_in_threadpool(request.app.state.storage.check_room)


SettingsDep = Annotated[Settings, Depends(_settings)]
RequestsDep = Annotated[RequestStore, Depends(_requests)]
StorageDep = Annotated[Storage, Depends(_storage)]
SecretDep = Annotated[Secret, Depends(_secret)]
LinksDep = Annotated[Links, Depends(_links)]
HasRoom = Depends(_has_room)
"""Among the `dependencies` of a route that takes files."""


async def find_own(request_id: str, owner: str, requests: RequestStore) -> Record | None:
    """The caller's own request; None also for another's: whether it exists is not told."""
    record = await requests.get(request_id)
    if record is None or record.owner != owner:
        return None
    logs.request_id.set(record.id)
    return record


async def _own_record(request_id: str, request: Request) -> Record:
    """Raises UnknownRequest."""
    # Read from the state, not by dependencies: callers ask often, and each dependency costs.
    record = await find_own(request_id, request.state.owner, request.app.state.requests)
    if record is None:
        raise UnknownRequest(await request.app.state.requests.outage_at(request_id))
    return record


OwnRecord = Annotated[Record, Depends(_own_record)]
