"""fal's two ways to send a picture: to its store with a token, or to a URL that was asked for first."""

import hmac
import mimetypes
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from pydantic import ValidationError

from app.auth import Owner
from app.deps import HasRoom, LinksDep, RequestsDep, SecretDep, SettingsDep, StorageDep
from app.errors import NothingHere, bad_field, bad_input
from app.fal import bodies
from app.http.body import read_bytes, read_json
from app.http.multipart import take_upload
from models.schema.fields import InputModel
from models.schema.inputs import read_input
from worker.inputs.decode import FORMATS
from worker.inputs.uploads import keep_upload, put_upload
from worker.secret import Secret
from worker.storage.pictures import new_file_id

TOKEN_SECONDS = 86_400
UPLOAD_SECONDS = 3_600
"""How long a URL that was asked for takes its file."""

MAX_ASKED_BYTES = 10_000

NAMES = {f"image/{kind.lower()}": f"upload.{kind.lower()}" for kind in FORMATS} | {
    "image/jpg": "upload.jpeg",
    "image/heic": "upload.heif",
}
"""What a file of each content type is called."""

router = APIRouter(tags=["fal"], include_in_schema=False)
upload_router = APIRouter(prefix="/fal/uploads", tags=["fal"], include_in_schema=False)


class Announced(InputModel):
    """A file that is about to be sent."""

    content_type: str = ""
    file_name: str = ""


@router.post(f"{bodies.REST_PATH}/storage/auth/token")
def give_token(request: Request, links: LinksDep) -> dict[str, str]:
    """Leave to send to the store: the caller's own key does as well."""
    expires = datetime.fromtimestamp(time.time() + TOKEN_SECONDS, UTC)
    return {
        "token": request.headers.get("authorization", "").partition(" ")[2] or "any",
        "token_type": "Bearer",
        "base_url": f"{links.base}{bodies.CDN_PATH}",
        "expires_at": expires.isoformat(),
    }


@router.post(f"{bodies.CDN_PATH}/files/upload", dependencies=[HasRoom])
async def upload(
    request: Request,
    owner: Owner,
    settings: SettingsDep,
    secret: SecretDep,
    storage: StorageDep,
    requests: RequestsDep,
    links: LinksDep,
) -> dict[str, str]:
    """Keep the picture that the body is; as `POST /v1/files`, the same bytes again give the same URL."""
    data = await read_bytes(request, settings.max_image_bytes)
    kept = await take_upload(partial(keep_upload, data, owner, secret, storage), owner, requests, storage)
    return {"access_url": links.file(kept.file_id, kept.name)}


@router.post(f"{bodies.REST_PATH}/storage/upload/initiate")
async def initiate_upload(
    request: Request, owner: Owner, secret: SecretDep, links: LinksDep
) -> dict[str, str]:
    """Where to put a file, without a token, and under which URL it will then be."""
    try:
        announced, _ = await read_json(request, MAX_ASKED_BYTES, partial(read_input, Announced))
    except ValidationError as error:
        raise bad_input(error) from None
    name = _name(announced)
    file_id, expires = new_file_id(), int(time.time()) + UPLOAD_SECONDS
    signature = _sign(secret, file_id, name, owner, expires)
    signed = urlencode({"owner": owner, "until": expires, "signature": signature})
    return {
        "upload_url": f"{links.base}{upload_router.prefix}/{file_id}/{name}?{signed}",
        "file_url": links.file(file_id, name),
    }


@upload_router.put("/{file_id}/{name}", dependencies=[HasRoom])
async def put_file(
    file_id: str,
    name: str,
    request: Request,
    settings: SettingsDep,
    secret: SecretDep,
    storage: StorageDep,
    requests: RequestsDep,
    owner: str = "",
    until: int = 0,
    signature: str = "",
) -> dict[str, Any]:
    """Take the file of a URL that `initiate_upload` gave out: the signature in it is the permission."""
    if until < time.time() or not hmac.compare_digest(
        _sign(secret, file_id, name, owner, until).encode(), signature.encode()
    ):
        raise NothingHere("This URL takes no file, or no longer; ask for another one.")
    data = await read_bytes(request, settings.max_image_bytes)
    await take_upload(partial(put_upload, data, file_id, name, storage), owner, requests, storage)
    return {}


def _name(announced: Announced) -> str:
    """Raises BadInput for what is no picture that we take."""
    kind = announced.content_type.partition(";")[0].strip().lower()
    name = NAMES.get(kind) or NAMES.get(mimetypes.guess_type(announced.file_name)[0] or "")
    if name is None:
        raise bad_field("content_type", f"content_type: is none of {', '.join(NAMES)}.")
    return name


def _sign(secret: Secret, file_id: str, name: str, owner: str, until: int) -> str:
    return secret.derive("fal upload", file_id, name, owner, str(until)).hex()
