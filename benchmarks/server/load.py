"""What one API process holds, with no worker running: submits, a long queue, polls, open event streams."""

import asyncio
import time
from pathlib import Path
from typing import Any

import redis
from rq import Queue

from app.config import Settings
from benchmarks.server.callers import BODY, CALLERS, SUBMIT, Connection, connected, rate, submit
from benchmarks.server.parts import Part, running_api, running_bare
from worker.queue.follow import LOOK_SECONDS

POLLS = 3
"""Of each poller."""
BATCH = 400
BATCHES = 8


def measure_load(store_url: str, folder: Path, queued: int, pollers: int, streams: int) -> dict[str, Any]:
    settings = Settings(_env_file=None, data_dir=folder, port=0, max_queue=queued)
    figures: dict[str, Any] = {}
    log = folder / "log"
    with running_api(settings, store_url, log) as ours, redis.Redis.from_url(store_url) as client:
        with running_bare(settings, store_url, log) as bare:
            figures["submit_cost"] = asyncio.run(_costs(ours, bare, client))
        figures["rq_enqueue_per_s"] = _rq_rate(client)
        client.flushall()
        before = client.info("memory")["used_memory"]
        figures["submit"] = asyncio.run(rate(ours.url, CALLERS, queued, submit))
        used = client.info("memory")["used_memory"] - before
        figures["bytes_per_queued_request"] = round(used / queued)
        figures["full_queue"] = asyncio.run(_refuse(ours))
        # Streams first: memory that pollers leave free would be taken for theirs.
        figures["streams"] = asyncio.run(_stream(ours, streams))
        figures["polls"] = asyncio.run(_poll(ours, pollers))
    return figures


async def _costs(ours: Part, bare: Part, client: redis.Redis) -> dict[str, Any]:
    """Milliseconds of the API's processor for a submit, and for the bare route's one round trip to Redis."""

    async def call_bare(connection: Connection, _: int) -> None:
        await connection.call("POST", "/", BODY)

    spent: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(BATCHES):
        for name, part, call in (("ours", ours, submit), ("bare", bare, call_bare)):
            client.flushall()
            before = part.cpu_seconds()
            await rate(part.url, CALLERS, BATCH, call)
            spent[name].append((part.cpu_seconds() - before) / BATCH)
    mine, floor = (sorted(spent[name])[BATCHES // 2] for name in ("ours", "bare"))
    return {"ms": round(1000 * mine, 2), "bare_ms": round(1000 * floor, 2), "ratio": round(mine / floor, 2)}


def _rq_rate(client: redis.Redis) -> int:
    queue = Queue("compared", connection=client)
    begun = time.perf_counter()
    for _ in range(BATCHES * BATCH):
        queue.enqueue("worker.queue.run_next", BODY)
    return round(BATCHES * BATCH / (time.perf_counter() - begun))


async def _refuse(ours: Part) -> dict[str, Any]:
    """Submits into a line that is full."""
    answers: set[tuple[int, str | None]] = set()

    async def submit_in_vain(connection: Connection, _: int) -> None:
        answer = await connection.call("POST", SUBMIT, BODY)
        answers.add((answer.status, answer.headers.get("retry-after")))

    figures = await rate(ours.url, CALLERS, BATCH, submit_in_vain)
    ((status, retry_after),) = answers
    return {"status": status, "retry_after": retry_after} | figures


async def _poll(ours: Part, pollers: int) -> dict[str, Any]:
    """Each asks for a request of its own, over and over, at the end of a long queue."""
    ids = await _ids(ours, pollers)

    async def ask(connection: Connection, number: int) -> None:
        await connection.call("GET", f"/v1/requests/{ids[number % len(ids)]}/status")

    before = ours.cpu_seconds()
    figures = await rate(ours.url, pollers, POLLS * pollers, ask)
    return figures | {"cpu_ms": round(1000 * (ours.cpu_seconds() - before) / (POLLS * pollers), 2)}


async def _stream(ours: Part, streams: int) -> dict[str, Any]:
    """Streams that are open at once, each of a request of its own, and how long a status takes meanwhile."""
    ids = await _ids(ours, streams)

    async def ask(connection: Connection, number: int) -> None:
        await connection.call("GET", f"/v1/requests/{ids[number % len(ids)]}/status")

    before, begun = ours.memory(), time.perf_counter()
    async with connected(ours.url, streams) as opened:
        paths = (f"/v1/requests/{request_id}/events" for request_id in ids)
        await asyncio.gather(*(stream.first_event(path) for stream, path in zip(opened, paths, strict=True)))
        seconds = time.perf_counter() - begun
        used = ours.memory() - before
        spent = ours.cpu_seconds()
        # In this time each is looked after once, news or not.
        await asyncio.sleep(LOOK_SECONDS)
        spent = ours.cpu_seconds() - spent
        meanwhile = await rate(ours.url, 1, 200, ask)
    return {
        "opened_per_s": round(streams / seconds),
        "kib_each": round(used / streams / 1024, 1),
        "cores_without_news": round(spent / LOOK_SECONDS, 3),
        "status_meanwhile": meanwhile,
    }


async def _ids(ours: Part, count: int) -> list[str]:
    ids: list[str] = []
    cursor = ""
    async with connected(ours.url, 1) as (connection,):
        while len(ids) < count:
            page = (await connection.call("GET", f"/v1/requests?limit=100{cursor}")).body
            ids += [entry["request_id"] for entry in page["requests"]]
            cursor = f"&cursor={page['next_cursor']}"
    return ids[:count]
