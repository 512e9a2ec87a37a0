"""Callers that cost little themselves: HTTP/1.1 by hand on a kept connection, so the server is measured."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.run import percentiles
from models.schema.model_ids import CONTROLNET_LORA

CALLERS = 16
SUBMIT = f"/v1/models/{CONTROLNET_LORA}"
BODY = {
    "prompt": "A lighthouse on a cliff at dusk",
    "image_url": "https://example.com/photo.jpg",
    "loras": [{"path": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union", "scale": 1}],
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any
    """Parsed JSON; None of a stream."""


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Raises RuntimeError for a 5xx."""
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
        self._writer.write("\r\n".join([*head, f"content-length: {len(data)}", "", ""]).encode() + data)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        status = int(lines[0].split()[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = headers.get("content-length")
        answer = await self._reader.readexactly(int(length)) if length else None
        if status >= 500:
            raise RuntimeError(f"{method} {path}: {status} {answer!r}")
        return Answer(status, headers, None if answer is None else json.loads(answer))

    async def first_event(self, path: str) -> None:
        """Opens a stream of events and waits for the first; the stream stays open."""
        await self.call("GET", path)
        await self._reader.readuntil(b"data:")

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[Connection]]:
    address = urlsplit(url)
    found: list[Connection] = []
    try:
        for _ in range(count):
            found.append(Connection(*await asyncio.open_connection(address.hostname, address.port)))
        yield found
    finally:
        for connection in found:
            connection.close()


async def rate(
    url: str, callers: int, calls: int, call: Callable[[Connection, int], Awaitable[Any]]
) -> dict[str, Any]:
    """Calls a second from so many callers at once, and the milliseconds that one took."""
    took: list[float] = []
    numbers = iter(range(calls))

    async def caller(connection: Connection, numbers: Iterator[int]) -> None:
        for number in numbers:
            begun = time.perf_counter()
            await call(connection, number)
            took.append(1000 * (time.perf_counter() - begun))

    async with connected(url, callers) as connections:
        begun = time.perf_counter()
        await asyncio.gather(*(caller(connection, numbers) for connection in connections))
        seconds = time.perf_counter() - begun
    return {"per_s": round(calls / seconds), "ms": percentiles(took)}


async def submit(connection: Connection, _: int) -> str:
    """The request's id."""
    answer = await connection.call("POST", SUBMIT, BODY)
    if answer.status != 200:
        raise RuntimeError(f"a submit was answered {answer.status}: {answer.body}")
    request_id: str = answer.body["request_id"]
    return request_id
