"""What the queues and workers look like at one moment, for /v1/stats and /metrics."""

from dataclasses import dataclass

import redis.asyncio

from worker.queue import keys
from worker.queue.keys import Queue
from worker.queue.registry import WorkerInfo, read_workers

MINUTE = 60


@dataclass(frozen=True)
class Stats:
    """What the queues and workers look like now."""

    waiting: dict[Queue, int]
    """Requests that wait for a worker, by queue."""
    in_line: int
    """Requests not yet taken by a GPU worker."""
    running: int
    """Requests in a worker's hands, on either queue."""
    finished_last_minute: int
    """Requests that came to an end, whichever."""
    generate_seconds: float | None
    """Moving average of a generation."""
    workers: list[WorkerInfo]
    counts: dict[str, int]
    """What the scripts counted since ever: `name|label|label` -> how many."""


async def read_stats(client: redis.asyncio.Redis) -> Stats:
    """Raises what redis-py raises when Redis is away."""
    seconds, _ = await client.time()
    pipe = client.pipeline(transaction=True)
    pipe.zcard(keys.WAITING + "io")
    pipe.zcard(keys.WAITING + "gpu")
    pipe.zcard(keys.LINE)
    pipe.zcard(keys.LEASES)
    pipe.zcount(keys.DONE, (seconds - MINUTE) * 1000, "+inf")
    pipe.get(keys.PACE)
    pipe.hgetall(keys.METRICS)
    io, gpu, in_line, running, finished, pace, counts = await pipe.execute()
    return Stats(
        waiting={"io": io, "gpu": gpu},
        in_line=in_line,
        running=running,
        finished_last_minute=finished,
        generate_seconds=int(pace) / 1000 if pace else None,
        workers=await read_workers(client),
        counts={name: int(count) for name, count in counts.items()},
    )
