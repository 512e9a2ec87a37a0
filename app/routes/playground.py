"""The page at `/` and its files under /playground/: no token, nothing from elsewhere, nothing guessed.

The page names its files under a folder called by what they hold, so that a browser keeps them for ever and
never mixes old and new ones: after an update the page names another folder.
"""

import gzip
import hashlib
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import NothingHere
from app.routes.page_script import linked
from models.command import zturbo

FOLDER = Path(__file__).parent.parent / "playground"

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".png": "image/png",
}
"""What is served. Not left to the machine's own table of types, which may say that a script is text."""

SHEETS = ("tokens", "base", "layout", "inputs", "fields", "control", "stage", "history", "document")
"""The files of css/ in the order in which they stand in css/page.css: one answer instead of as many."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
ASK_AGAIN = "no-cache"
KEEP = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """A file of the page, read once: `data` as it is, `packed` by gzip where that makes it smaller."""

    data: bytes
    content_type: str
    packed: bytes = field(init=False)
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        is_text = not self.content_type.startswith("image/") or "svg" in self.content_type
        object.__setattr__(self, "packed", gzip.compress(self.data, mtime=0) if is_text else b"")
        object.__setattr__(self, "etag", f'"{hashlib.sha256(self.data).hexdigest()[:32]}"')

    def response(self, request: Request, cache_control: str) -> Response:
        """The file, or 304 when the caller has it."""
        headers = HEADERS | {"ETag": self.etag, "Cache-Control": cache_control, "Vary": "Accept-Encoding"}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if self.packed and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(self.packed, headers=headers, media_type=self.content_type)
        return Response(self.data, headers=headers, media_type=self.content_type)


def read_assets() -> tuple[str, dict[str, Asset]]:
    """The version, and every file by its name below /playground/; a caller's path is looked up there."""
    files = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in CONTENT_TYPES
    }
    files["css/page.css"] = b"\n".join(files.pop(f"css/{sheet}.css") for sheet in SHEETS)
    modules = {name: data.decode() for name, data in files.items() if name.endswith(".js")}
    files["js/page.js"] = linked(modules, "js/main.js").encode()
    version = hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    files["index.html"] = (
        files["index.html"]
        .replace(b'"playground/', f'"playground/{version}/'.encode())
        .replace(b'data-zturbo="zturbo"', f'data-zturbo="{escape(zturbo())}"'.encode())
    )
    return version, {
        name: Asset(data, CONTENT_TYPES["." + name.rpartition(".")[2]]) for name, data in files.items()
    }


VERSION, FILES = read_assets()

router = APIRouter(include_in_schema=False)


@router.head("/playground/{name:path}")
@router.get("/playground/{name:path}", response_class=Response)
def get_playground_file(name: str, request: Request) -> Response:
    version, _, rest = name.partition("/")
    asset, cache_control = (FILES.get(rest), KEEP) if version == VERSION else (FILES.get(name), ASK_AGAIN)
    if asset is None:
        raise NothingHere("The playground has no such file.")
    return asset.response(request, cache_control)


def page(request: Request) -> Response:
    """The page itself, which is asked for again each time."""
    return FILES["index.html"].response(request, ASK_AGAIN)
