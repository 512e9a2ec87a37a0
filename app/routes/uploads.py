"""The route that keeps a caller's picture, to be named as `image_url` as often as they like."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from app.auth import Owner
from app.deps import HasRoom, LinksDep, RequestsDep, SecretDep, SettingsDep, StorageDep
from app.http.multipart import read_file, take_upload
from app.routes.files import CONTENT_TYPES
from app.schemas import FileBody, errors_answered
from worker.inputs.uploads import keep_upload

MULTIPART: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}

router = APIRouter(prefix="/v1/files", tags=["files"])


@router.post(
    "", dependencies=[HasRoom], responses=errors_answered(408, 413, 415, 507), openapi_extra=MULTIPART
)
async def upload_file(
    request: Request,
    owner: Owner,
    settings: SettingsDep,
    secret: SecretDep,
    storage: StorageDep,
    requests: RequestsDep,
    links: LinksDep,
) -> FileBody:
    """Keep a picture; the answer's `url` is good as `image_url`. The same bytes again give the same URL."""
    data = await read_file(request, "file", settings.max_image_bytes)
    upload = await take_upload(partial(keep_upload, data, owner, secret, storage), owner, requests, storage)
    return FileBody(
        url=links.file(upload.file_id, upload.name),
        file_id=upload.file_id,
        name=upload.name,
        content_type=CONTENT_TYPES["." + upload.name.rpartition(".")[2]],
        size=upload.size,
    )
