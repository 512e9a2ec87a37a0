"""The workers that are alive: each says so once a second, and is forgotten soon after it falls silent."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import redis
import redis.asyncio

from worker.queue import keys, scripts
from worker.queue.keys import Queue
from worker.queue.scripts import AsyncScripts, Scripts

WorkerState = Literal["starting", "ready", "busy", "asleep", "waking", "setup_failed", "quarantined"]
"""`asleep`: it gave its memory back, as no request came; `waking`: one came, and it loads its model again."""


@dataclass(frozen=True)
class WorkerInfo:
    """What one worker says of itself."""

    id: str
    kind: Queue
    state: WorkerState
    model: str | None = None
    """Name of the loaded model; GPU workers only, as `device` and `fast_path`."""
    device: str | None = None
    fast_path: str | None = None
    """How its model runs: `eager`, or a faster way."""
    detail: str | None = None
    """Why the set-up failed, its GPU is left alone, or it sleeps."""
    memory_used: int | None = None
    """Bytes in use on its GPU, whoever uses them; CUDA only, as `memory_total`."""
    memory_total: int | None = None
    lacks: dict[str, int] = field(default_factory=dict)
    """GPU workers: by `preprocess` that its machine has no weights for, their bytes."""
    counts: dict[str, int] = field(default_factory=dict)
    """What its process counted since it began, as worker.counters tells it."""

    @property
    def host(self) -> str:
        """Name of its machine, which may have dashes: an id is `kind-host-pid-random`."""
        return self.id.partition("-")[2].rsplit("-", 2)[0]


class Registry:
    """A worker's own entry."""

    def __init__(self, client: redis.Redis, hold_seconds: float) -> None:
        """`hold_seconds`: how long an entry holds without being said again."""
        self._client = client
        self._scripts = Scripts(client)
        self._hold_ms = int(hold_seconds * 1000)

    def say(self, info: WorkerInfo) -> None:
        said = json.dumps(asdict(info))
        self._scripts.run(
            scripts.register(queue=info.kind, worker_id=info.id, info=said, hold_ms=self._hold_ms)
        )

    def wake(self, info: WorkerInfo) -> bool:
        """Whether the worker, which sleeps, is to load its model for a request that waits.

        `info` is what it says of itself in that case.
        """
        said = json.dumps(asdict(info))
        return self._scripts.run(
            scripts.wake(queue=info.kind, worker_id=info.id, info=said, hold_ms=self._hold_ms)
        )

    def process_ids(self, kind: Queue, host: str) -> set[str]:
        """Of the workers that last said on this machine that they live; some may be dead."""
        ids: list[str] = self._client.zrange(keys.WORKERS + kind, 0, -1)  # type: ignore[assignment]
        return {each.rsplit("-", 2)[1] for each in ids if each.startswith(f"{kind}-{host}-")}

    def leave(self, info: WorkerInfo) -> None:
        self._client.zrem(keys.WORKERS + info.kind, info.id)
        self._client.delete(keys.WORKER + info.id)


def model_note(workers: list[WorkerInfo]) -> str | None:
    """What the next request waits for where no worker has the model loaded, as a sentence; None: one has."""
    states = {worker.state for worker in workers if worker.kind == "gpu"}
    if states.intersection(("ready", "busy")):
        return None
    if states.intersection(("starting", "waking")):
        return "The model is being loaded."
    return "The model is asleep; the next request wakes it." if "asleep" in states else None


async def read_workers(client: redis.asyncio.Redis) -> list[WorkerInfo]:
    entries = await AsyncScripts(client).run(scripts.workers())
    return [_parse(json.loads(entry)) for entry in entries]


def _parse(said: dict[str, Any]) -> WorkerInfo:
    # A newer worker may say more than this code knows.
    return WorkerInfo(**{each.name: said[each.name] for each in fields(WorkerInfo) if each.name in said})
