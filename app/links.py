"""Absolute URLs for a caller: under ZTURBO_PUBLIC_BASE_URL, else under the address that the caller used."""

import re
from dataclasses import dataclass

from starlette.requests import Request

from app.config import Settings

HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
"""A Host header that may stand in a URL."""


@dataclass(frozen=True)
class Links:
    base: str
    """Without a slash at the end."""

    def request(self, request_id: str, leaf: str) -> str:
        """`leaf`: status, result or cancel."""
        return f"{self.base}/v1/requests/{request_id}/{leaf}"

    def file(self, file_id: str, name: str) -> str:
        return f"{self.base}/v1/files/{file_id}/{name}"


def links_of(request: Request) -> Links:
    settings: Settings = request.app.state.settings
    if settings.public_base_url:
        return Links(settings.public_base_url.rstrip("/"))
    host = request.headers.get("host", "")
    if not HOST.fullmatch(host):
        host = f"{settings.host}:{settings.port}"
    return Links(f"{request.scope['scheme']}://{host}")
