"""What a route is handed besides the call itself; `create_app` puts it on the application's state."""

from typing import Annotated

from fastapi import Depends, Request

from app.auth import Owner
from app.config import Settings
from app.errors import UnknownRequest
from app.links import Links, links
from worker import logs
from worker.records import Record
from worker.requests import Requests
from worker.secret import Secret
from worker.storage import Storage


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _requests(request: Request) -> Requests:
    requests: Requests = request.app.state.requests
    return requests


def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def _secret(request: Request) -> Secret:
    secret: Secret = request.app.state.secret
    return secret


SettingsDep = Annotated[Settings, Depends(_settings)]
RequestsDep = Annotated[Requests, Depends(_requests)]
StorageDep = Annotated[Storage, Depends(_storage)]
SecretDep = Annotated[Secret, Depends(_secret)]
LinksDep = Annotated[Links, Depends(links)]


async def _own_record(request_id: str, owner: Owner, requests: RequestsDep) -> Record:
    """The caller's own request. Raises UnknownRequest, also for another's: whether it exists is not told."""
    record = await requests.get(request_id)
    if record is None or record.owner != owner:
        raise UnknownRequest
    logs.request_id.set(record.id)
    return record


OwnRecord = Annotated[Record, Depends(_own_record)]
