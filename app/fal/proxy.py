"""Where fal's JavaScript client sends its calls when it is told a `proxyUrl`, as it is in a browser.

The header says where a call was meant to go; here it goes to its place on this server, its body unread.
"""

from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import NothingHere
from app.fal import bodies

HOSTS = {
    "queue.fal.run": "",
    "fal.run": bodies.RUN_PATH,
    "rest.fal.ai": bodies.REST_PATH,
    "v3.fal.media": bodies.CDN_PATH,
}
"""Where here the paths of fal's hosts are."""

TAKEN = (
    f"/{bodies.OWNER}/{bodies.APP}/",
    f"{bodies.RUN_PATH}/{bodies.OWNER}/{bodies.APP}/",
    f"{bodies.REST_PATH}/storage/",
    f"{bodies.CDN_PATH}/files/",
)

router = APIRouter(include_in_schema=False)


class _Forward(Response):
    """The answer of another path of the same application."""

    def __init__(self, app: ASGIApp, path: str, query: str) -> None:
        super().__init__()
        self._app, self._path, self._query = app, path, query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fresh = {
            name: scope[name] for name in scope if name not in ("route", "endpoint", "path_params", "router")
        }
        raw = self._path.encode("ascii", "ignore")
        place = {"path": unquote(self._path), "raw_path": raw, "query_string": self._query.encode()}
        await self._app(fresh | place | {"state": {}}, receive, send)


@router.api_route("/fal/proxy", methods=["GET", "POST", "PUT"])
async def proxy(request: Request) -> Response:
    """The call that `x-fal-target-url` names. Raises NothingHere unless it is answered here."""
    target = urlsplit(request.headers.get("x-fal-target-url", ""))
    host = HOSTS.get(target.hostname or "")
    path = f"{host}{target.path}"
    if host is None or not path.startswith(TAKEN):
        raise NothingHere(
            f"x-fal-target-url: only calls of {bodies.OWNER}/{bodies.APP} and of fal's storage are taken."
        )
    return _Forward(request.app, path, target.query)
