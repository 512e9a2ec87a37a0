"""Pictures that this server made or was sent. No token: the 128 bits of the id are the permission."""

from pathlib import PurePath

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.deps import StorageDep
from app.errors import NothingHere
from app.http.in_pieces import READING, InPieces, counted
from app.schemas import errors_answered

CONTENT_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".avif": "image/avif",
    ".heif": "image/heif",
}
"""What a name's ending means. Nothing else is served, and nothing is guessed from the bytes."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
    # A file never changes under its id.
    "Cache-Control": "public, max-age=31536000, immutable",
}

router = APIRouter(prefix="/v1/files", tags=["files"])


@router.head("/{file_id}/{name}", include_in_schema=False)
@router.get(
    "/{file_id}/{name}",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in CONTENT_TYPES.values()}}, **errors_answered(404, 503)},
)
async def get_file(file_id: str, name: str, request: Request, storage: StorageDep) -> Response:
    """A picture. It needs no token: who knows the URL may see it."""
    content_type = CONTENT_TYPES.get(PurePath(name).suffix)
    data = None
    if content_type:
        data = await to_thread.run_sync(storage.read, file_id, name, limiter=READING)
    if data is None:
        raise NothingHere("This file is unknown, was deleted, or has expired.")
    headers = HEADERS | {"ETag": f'"{file_id}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return counted(InPieces(data, headers=headers, media_type=content_type), request)
