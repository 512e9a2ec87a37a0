"""How much the HTTP server holds, with no worker running: submits, polls, open event streams, a long queue.

    python -m benchmarks.server

One API process, Redis and the callers share this machine's cores. In the same run: a bare FastAPI route, and
submitting by `rq.enqueue`. One run is one row of benchmarks/results/server.jsonl.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis
import uvicorn
from fastapi import FastAPI
from rq import Queue

from app.config import Settings
from app.main import create_app
from app.server import server_config
from benchmarks.rows import percentiles, write_row
from benchmarks.store import running_store
from models.catalog import ENDPOINTS

CALLERS = 16
SECONDS = 60.0
SUBMIT = "/v1/models/" + next(name for name in ENDPOINTS if name.endswith("controlnet/lora"))
BODY = {
    "prompt": "A lighthouse on a cliff at dusk",
    "image_url": "https://example.com/photo.jpg",
    "loras": [{"path": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union", "scale": 1}],
}

Call = Callable[[httpx.AsyncClient, int], Awaitable[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=2000, help="of what is compared with")
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--pollers", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zturbo-load-") as folder, running_store(Path(folder)) as store:
        settings = Settings(
            _env_file=None, data_dir=Path(folder), redis_url=store.url, port=0, max_queue=options.queued
        )
        figures: dict[str, Any] = {}
        with _served(_bare(), settings) as url:
            figures["bare_route"] = asyncio.run(_rate(url, options.calls, _post_bare))
        figures["rq_enqueue_per_s"] = _rq_rate(store.url, options.calls)
        with _served(create_app(settings), settings) as url, redis.Redis.from_url(store.url) as client:
            before = int(client.info("memory")["used_memory"])
            figures["submit"] = asyncio.run(_rate(url, options.queued, _submit))
            used = int(client.info("memory")["used_memory"]) - before
            figures["bytes_per_queued_request"] = round(used / options.queued)
            figures["refused"] = asyncio.run(_refusal(url))
            figures["status_at_that_depth"] = asyncio.run(_poll(url, options.pollers))
            figures["streams"] = asyncio.run(_stream(url, options.streams))
        write_row("server.jsonl", vars(options) | figures)


@contextmanager
def _served(app: FastAPI, settings: Settings) -> Iterator[str]:
    server = uvicorn.Server(server_config(app, settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _bare() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        return body

    return app


async def _post_bare(http: httpx.AsyncClient, _: int) -> None:
    (await http.post("/", json=BODY)).raise_for_status()


async def _submit(http: httpx.AsyncClient, _: int) -> None:
    (await http.post(SUBMIT, json=BODY)).raise_for_status()


async def _rate(url: str, calls: int, call: Call) -> dict[str, Any]:
    """Calls a second from CALLERS at once, and how long one took."""
    took: list[float] = []
    numbers = iter(range(calls))

    async def caller(http: httpx.AsyncClient) -> None:
        for number in numbers:
            begun = time.perf_counter()
            await call(http, number)
            took.append(1000 * (time.perf_counter() - begun))

    async with _client(url) as http:
        begun = time.perf_counter()
        await asyncio.gather(*(caller(http) for _ in range(CALLERS)))
        return {"per_s": round(calls / (time.perf_counter() - begun)), "ms": percentiles(took)}


def _rq_rate(redis_url: str, jobs: int) -> int:
    with redis.Redis.from_url(redis_url) as client:
        queue = Queue("compared", connection=client)
        begun = time.perf_counter()
        for _ in range(jobs):
            queue.enqueue("worker.queue.run_next", BODY)
        rate = round(jobs / (time.perf_counter() - begun))
        client.flushall()
    return rate


async def _refusal(url: str) -> dict[str, Any]:
    """What a full queue answers."""
    async with _client(url) as http:
        answer = await http.post(SUBMIT, json=BODY)
    return {"status": answer.status_code, "retry_after": answer.headers.get("Retry-After")}


async def _poll(url: str, pollers: int) -> dict[str, Any]:
    """Each poller asks for a request of its own, over and over."""
    ids = await _ids(url, pollers)

    async def ask(http: httpx.AsyncClient, number: int) -> None:
        (await http.get(f"/v1/requests/{ids[number % len(ids)]}/status")).raise_for_status()

    return await _rate(url, 3 * pollers, ask)


async def _stream(url: str, streams: int) -> dict[str, Any]:
    """Streams that are open at once, and how long a status takes meanwhile."""
    ids = await _ids(url, 100)

    async def ask(http: httpx.AsyncClient, number: int) -> None:
        (await http.get(f"/v1/requests/{ids[number % len(ids)]}/status")).raise_for_status()

    async with _client(url) as http, AsyncExitStack() as opened:
        begun = time.perf_counter()
        for number in range(streams):
            answer = await opened.enter_async_context(
                http.stream("GET", f"/v1/requests/{ids[number % len(ids)]}/events")
            )
            answer.raise_for_status()
            await anext(answer.aiter_lines())
        seconds = time.perf_counter() - begun
        meanwhile = await _rate(url, 5 * len(ids), ask)
    return {"open": streams, "opened_in_s": round(seconds, 1), "status_meanwhile": meanwhile}


async def _ids(url: str, count: int) -> list[str]:
    ids: list[str] = []
    cursor: str | None = None
    async with _client(url) as http:
        while len(ids) < count:
            query = {"limit": "100", **({"cursor": cursor} if cursor else {})}
            page = (await http.get("/v1/requests", params=query)).json()
            ids += [entry["request_id"] for entry in page["requests"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    return ids[:count]


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=SECONDS, limits=limits, trust_env=False)


if __name__ == "__main__":
    main()
