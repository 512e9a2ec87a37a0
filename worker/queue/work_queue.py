"""A worker's moves on requests: take one, keep it, hand it on, end it, and clear away.

Each is a script of `worker.queue.scripts` that is safe to send twice. The API's moves are in
`worker.queue.requests`.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from worker.config import DAY_SECONDS, WorkerSettings
from worker.errors import LeaseLost
from worker.queue import keys, scripts
from worker.queue.affinity import NO_WEIGHTS, Weights
from worker.queue.keys import Queue, Stage
from worker.queue.record import RECORD_VERSION, Record, State, parse
from worker.queue.scripts import Reaped, Scripts, Standing


class WorkQueue:
    """A worker's moves. Each raises what redis-py raises when Redis is away."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._client = client
        self._settings = settings
        self._scripts = Scripts(client)
        self._lease_ms = int(settings.lease_seconds * 1000)

    def get(self, request_id: str) -> Record | None:
        fields: dict[str, str] = self._client.hgetall(keys.REQUEST + request_id)  # type: ignore[assignment]
        return self._parse(fields) if fields else None

    def _parse(self, fields: Mapping[str, str]) -> Record:
        return parse(fields, self._settings.retention_days)

    def next(self, queue: Queue, token: str, worker_id: str, held: Weights = NO_WEIGHTS) -> Record | None:
        """Takes a waiting request; the same token gets the same request again while it holds it.

        It is the first, or on the gpu queue one of the first, for which a worker that holds these weights has
        the least to load.
        """
        call = scripts.next(
            queue=queue,
            token=token,
            worker_id=worker_id,
            lease_ms=self._lease_ms,
            known_version=RECORD_VERSION,
            held_controlnet=held.controlnet,
            held_loras=held.loras,
        )
        fields = self._scripts.run(call)
        return self._parse(fields) if fields else None

    def beat(
        self,
        request_id: str,
        token: str,
        step: int = 0,
        total_steps: int = 0,
        preview: bytes = b"",
        seconds_left: float | None = None,
    ) -> Standing:
        """Extends the lease and writes the progress, if the token still holds the request.

        `preview` is a JPEG of what the picture looks like after that step, `seconds_left` the time from now
        until it is done.
        """
        call = scripts.beat(
            id=request_id,
            token=token,
            lease_ms=self._lease_ms,
            step=step,
            total_steps=total_steps,
            left_ms=None if seconds_left is None else int(seconds_left * 1000),
            preview=base64.b64encode(preview).decode(),
        )
        return self._scripts.run(call)

    def is_watched(self, request_id: str) -> bool:
        """Whether somebody follows the request and would look at a preview."""
        return bool(self._client.exists(keys.WATCHED + request_id))

    def advance(
        self,
        request_id: str,
        token: str,
        stage: Stage,
        made: dict[str, Any],
        weights: Weights | None = None,
    ) -> int:
        """Hands the request on to `stage` with what this stage made; returns the bells to ring there.

        `weights` are what the next stage needs, if that is known. Raises LeaseLost when the token no longer
        holds the request.
        """
        field = {"generate": "prepared", "finish": "generated"}[stage]
        fields = {field: json.dumps(made)} | ({"weights": "/".join(weights)} if weights else {})
        advanced = self._scripts.run(scripts.advance(id=request_id, token=token, stage=stage, fields=fields))
        _require(advanced.standing, request_id)
        return advanced.bells_missing

    def finish(self, request_id: str, token: str, output: dict[str, Any]) -> None:
        """Succeeded. Raises LeaseLost when the token no longer holds the request."""
        self._close(request_id, token, "succeeded", "output", output)

    def fail(self, request_id: str, token: str, error_type: str, message: str) -> None:
        """Failed. Raises LeaseLost when the token no longer holds the request."""
        self._close(request_id, token, "failed", "error", {"type": error_type, "message": message})

    def _close(self, request_id: str, token: str, state: State, field: str, value: dict[str, Any]) -> None:
        fields = {field: json.dumps(value)}
        standing = self._scripts.run(scripts.close(id=request_id, token=token, state=state, fields=fields))
        _require(standing, request_id)

    def release(self, request_id: str, token: str) -> None:
        """Back to the front of its queue, as if it had not been taken; nothing when the token lost it."""
        self._scripts.run(scripts.release(id=request_id, token=token))

    def reap(self, turn_seconds: float) -> Reaped | None:
        """Takes requests from workers that fell silent; None when another process did so in this turn."""
        turn_ms, max_attempts = int(turn_seconds * 1000), self._settings.max_attempts
        return self._scripts.run(
            scripts.reap(lease_ms=self._lease_ms, max_attempts=max_attempts, turn_ms=turn_ms)
        )

    def declare_dead(self, queue: Queue, id_prefix: str) -> int:
        """A worker whose id begins so is known to be dead: its requests wait for no lease to run out.

        Returns how many it held; they are handed back at the next turn of `reap`.
        """
        return self._scripts.run(scripts.declare_dead(queue=queue, id_prefix=id_prefix))

    def in_line(self) -> set[str]:
        """What unfinished requests need of this machine's caches: names of LoRAs, paths, SHA-256s."""
        ids: list[str] = self._client.zrange(keys.LINE, 0, -1)  # type: ignore[assignment]
        ids += self._client.zrange(keys.LEASES, 0, -1)  # type: ignore[arg-type]
        pipe = self._client.pipeline(transaction=False)
        for request_id in ids:
            pipe.hmget(keys.REQUEST + request_id, "input", "prepared")
        names: set[str] = set()
        for input, prepared in pipe.execute():
            names.update(lora["path"] for lora in json.loads(input or "{}").get("loras") or ())
            made = json.loads(prepared or "{}")
            names.update((made.get("sent") or {}).values())
            job = made.get("job") or {}
            for lora in job.get("loras") or ():
                names.update((lora["path"], lora.get("sha256", "")))
            if job.get("controlnet"):
                # Fetched by URL, it is called by its SHA-256.
                names.update((job["controlnet"], Path(job["controlnet"]).stem))
        return names

    def has_turn(self, task: str, seconds: float) -> bool:
        """Whether this process is the one to do what needs doing once in so long."""
        return self._scripts.run(scripts.turn(task=task, turn_ms=int(seconds * 1000)))

    def forget_expired(self, limit: int) -> list[Record]:
        """Deletes records whose time is over, so many at most; their files are the caller's to delete."""
        retention_ms = int(self._settings.retention_days * DAY_SECONDS * 1000)
        ids = self._scripts.run(scripts.expired(retention_ms=retention_ms, limit=limit))
        expired = [record for request_id in ids if (record := self.get(request_id))]
        for request_id in ids:
            self._scripts.run(scripts.delete(id=request_id))
        return expired


def _require(standing: Standing, request_id: str) -> None:
    if standing not in ("held", "repeated"):
        raise LeaseLost(f"Request {request_id} was taken away from this worker ({standing}).", standing)
