"""Pictures through the whole server as fast as one GPU makes them: what the server adds to it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2

from app.config import Settings
from benchmarks.run import percentiles
from benchmarks.server.callers import BODY, SUBMIT, Connection, connected
from benchmarks.server.parts import running_all
from benchmarks.server.sleeper import PICTURE_SECONDS, photo, read_log

REQUESTS = 60
CALLERS = 8
HOST_SECONDS = 0.2
"""What the host of the callers' images takes for one."""


def measure_flow(store_url: str, folder: Path) -> dict[str, Any]:
    settings = Settings(_env_file=None, data_dir=folder, port=0, allow_hosts="127.0.0.1")
    with running_all(settings, store_url, folder / "log") as server:
        seconds, seen = asyncio.run(_call(server.url))
    log = [line for line in read_log(folder) if line[1] < REQUESTS]
    gaps = [1000 * (after[2] - before[2]) for before, after in pairwise(log) if before[0] == "end"]
    visible = [1000 * (seen[seed] - at) for what, seed, at in log if what == "end"]
    return {
        "seconds": round(seconds, 2),
        "times_the_pictures": round(seconds / (REQUESTS * PICTURE_SECONDS), 3),
        "gap_ms": percentiles(gaps),
        "last_step_to_result_ms": percentiles(visible),
    }


async def _call(url: str) -> tuple[float, dict[int, float]]:
    """Seconds for all requests, and by seed when its caller had the result."""
    seen: dict[int, float] = {}

    async def caller(connection: Connection, seeds: Any) -> None:
        for seed in seeds:
            body = BODY | {"image_url": f"{images}/{seed}.jpg", "seed": seed, "loras": []}
            answer = await connection.call("POST", f"{SUBMIT}?wait=60", body)
            if answer.body.get("status") != "succeeded":
                raise RuntimeError(f"{answer.body}")
            seen[seed] = time.monotonic()

    async with _image_host() as images:
        async with connected(url, CALLERS) as connections:
            first = enumerate(connections, REQUESTS)
            await asyncio.gather(*(caller(connection, [seed]) for seed, connection in first))
        async with connected(url, CALLERS) as connections:
            seeds = iter(range(REQUESTS))
            begun = time.monotonic()
            await asyncio.gather(*(caller(connection, seeds) for connection in connections))
            return time.monotonic() - begun, seen


@asynccontextmanager
async def _image_host() -> AsyncIterator[str]:
    """Base URL of a host that takes its time for every path."""
    _, jpeg = cv2.imencode(".jpg", photo())
    head = f"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\ncontent-length: {len(jpeg)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(HOST_SECONDS)
        writer.write(head + jpeg.tobytes())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
