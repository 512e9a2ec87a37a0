"""The page at `/` and its files under /playground/: no token, nothing from elsewhere, nothing guessed."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import NothingHere

FOLDER = Path(__file__).parent.parent / "playground"

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
"""What is served. Not left to the machine's own table of types, which may say that a script is text."""

FILES = frozenset(
    path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in CONTENT_TYPES
)
"""Every name that there is: a path of the caller's is only looked up among them."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept by the browser, and asked for again each time: after an update no page mixes old and new files.
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.head("/playground/{name:path}")
@router.get("/playground/{name:path}", response_class=Response)
def get_playground_file(name: str, request: Request) -> Response:
    if name not in FILES:
        raise NothingHere("The playground has no such file.")
    return playground_file(name, request)


def playground_file(name: str, request: Request) -> Response:
    """A file of the page, or 304 when the caller has it. `name`: one of FILES."""
    path = FOLDER / name
    data = path.read_bytes()
    headers = HEADERS | {"ETag": f'"{hashlib.sha256(data).hexdigest()[:32]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=CONTENT_TYPES[path.suffix])
