"""A small client of this server's HTTP contract, for the command line, the MCP server and the examples."""

import base64
import os
import re
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
"""How long `wait` puts up with a server that is restarting or busy."""

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
TERMINAL = ("completed", "cancelled")
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
"""The format of a picture's file, by its suffix."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What a request may be called: a caller may name files after it, so no server is trusted with more."""
MAGIC = {
    (0, b"\x89PNG"): "image/png",
    (0, b"\xff\xd8\xff"): "image/jpeg",
    (0, b"RIFF"): "image/webp",
    (0, b"GIF8"): "image/gif",
    (0, b"BM"): "image/bmp",
    (4, b"ftypavif"): "image/avif",
    (4, b"ftyp"): "image/heic",
}
"""Type by how a file reads from a place on, the first that fits."""


class ClientError(Exception):
    """The server said no, or could not be reached; `str(error)` is its sentence."""

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None when no answer came."""
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""

    @property
    def passing(self) -> bool:
        """Whether the same call may well succeed a little later."""
        return self.status in (None, 429, 502, 503, 504)


class WaitTimeout(ClientError):
    """`wait` ran out of time; the request goes on."""


class Client:
    """Talks to `base_url`, such as http://127.0.0.1:8000; `token` is the key. All raise ClientError.

    Every `request_id` in an answer is safe as the name of a file; the texts are as the server wrote them.
    """

    def __init__(self, base_url: str, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            if httpx.URL(base_url).scheme not in ("http", "https"):
                raise ClientError(
                    f"{base_url!r} is not a server's URL: it must begin with http:// or https://."
                )
            self.http = httpx.Client(base_url=base_url, headers=headers, timeout=TIMEOUT)
        except httpx.InvalidURL as error:
            raise ClientError(f"{base_url!r} is not a URL: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def submit(self, model_id: str, body: object) -> dict[str, Any]:
        return self._call_request("POST", f"v1/models/{model_id}", json=body)

    def status(self, request_id: str) -> dict[str, Any]:
        return self._call_request("GET", _path(request_id, "status"))

    def result(self, request_id: str) -> dict[str, Any]:
        return self._call_request("GET", _path(request_id, "result"))

    def cancel(self, request_id: str, force: bool = False) -> dict[str, Any]:
        """With `force` also a running request is stopped, between two steps."""
        params = {"force": "true"} if force else {}
        return self._call_request("POST", _path(request_id, "cancel"), params=params)

    def stats(self) -> dict[str, Any]:
        return self._call("GET", "v1/stats")

    def list_requests(self, limit: int) -> dict[str, Any]:
        """The caller's own, newest first."""
        return self._call("GET", "v1/requests", params={"limit": limit})

    def loras(self) -> dict[str, Any]:
        return self._call("GET", "v1/loras")

    def wait(
        self,
        request_id: str,
        on_status: Callable[[dict[str, Any]], None] | None = None,
        timeout: float | None = None,
        interval: float = POLL_SECONDS,
    ) -> dict[str, Any]:
        """The result, once there is one; `on_status` gets every status body on the way.

        Times in seconds. Raises WaitTimeout after `timeout`; a server may be away for PATIENCE_SECONDS.
        """
        end = None if timeout is None else time.monotonic() + timeout
        away_since: float | None = None
        while True:
            pause = interval
            try:
                status = self.status(request_id)
                if on_status is not None:
                    on_status(status)
                if status["status"] in TERMINAL:
                    return self.result(request_id)
                away_since = None
            except ClientError as error:
                away_since = away_since or time.monotonic()
                if not error.passing or time.monotonic() - away_since > PATIENCE_SECONDS:
                    raise
                pause = error.retry_after or interval
            if end is not None and time.monotonic() + pause > end:
                raise WaitTimeout(f"Request {request_id} is not done after {timeout:g} seconds; it goes on.")
            time.sleep(pause)

    def download(self, url: str, dest: Path) -> Path:
        """Save a file at `dest`, whole or not at all. No token is sent: the file may lie on another host."""
        part = dest.with_name(f".{dest.name}.{os.getpid()}.part")
        try:
            with httpx.stream("GET", url, timeout=TIMEOUT) as response:
                _check(response)
                with part.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            part.replace(dest)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(f"{url} could not be fetched: {error}") from error
        finally:
            part.unlink(missing_ok=True)
        return dest

    def fetch(self, url: str) -> bytes:
        """A file's content; no token is sent, as by `download`."""
        try:
            response = httpx.get(url, timeout=TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(f"{url} could not be fetched: {error}") from error
        _check(response)
        return response.content

    def _call_request(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """An answer about one request."""
        body = self._call(method, path, **request)
        request_id = body.get("request_id")
        if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
            sentence = f"{self.http.base_url} calls the request {request_id!r}, which is no request's id."
            raise ClientError(sentence, HTTPStatus.OK)
        return body

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = self.http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ClientError(f"No answer from {self.http.base_url}: {error}") from error
        _check(response)
        body = _json(response)
        if not isinstance(body, dict):
            raise ClientError(
                f"{self.http.base_url} does not answer as this server does.", response.status_code
            )
        return body


def picture_urls(result: dict[str, Any]) -> list[str]:
    """The pictures of a result that succeeded."""
    output = result["output"]
    return [str(url) for url in output.get("images") or [output["image"]]]


def picture_names(request_id: str, urls: Sequence[str]) -> list[str]:
    """What to call the files of a request's pictures: its id, a number if there are several, and the suffix.

    Raises ClientError where a URL does not end as a picture does.
    """
    stems = [f"{request_id}-{place}" for place in range(1, len(urls) + 1)] if len(urls) > 1 else [request_id]
    return [stem + _suffix(url) for stem, url in zip(stems, urls, strict=True)]


def _suffix(url: str) -> str:
    try:
        suffix = Path(urlsplit(url).path).suffix
    except ValueError:
        suffix = ""
    if suffix not in FORMATS:
        raise ClientError(f"{url!r} does not end as a picture does, so it is not saved.", HTTPStatus.OK)
    return suffix


def data_uri(image: bytes) -> str:
    """A picture in the way that it can be sent as `image_url`."""
    kinds = (kind for (place, magic), kind in MAGIC.items() if image.startswith(magic, place))
    kind = next(kinds, "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


def _path(request_id: str, leaf: str) -> str:
    return f"v1/requests/{quote(request_id, safe='')}/{leaf}"


def _check(response: httpx.Response) -> None:
    """Raises ClientError unless the answer is a 2xx."""
    if response.is_success:
        return
    response.read()
    body = _json(response)
    sentence = body.get("error_message") or body.get("message") if isinstance(body, dict) else None
    retry_after = response.headers.get("retry-after", "")
    raise ClientError(
        str(sentence or f"{response.url.host} answered {response.status_code} {response.reason_phrase}."),
        response.status_code,
        float(retry_after) if retry_after.isdecimal() else None,
    )


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
