"""The request record, the one truth about a request, and the moves a worker makes on it.

Every move is a Lua script (`lua/*.lua`) that is safe to send twice; `worker.queue.requests` has those of
the API.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import redis

from worker.config import WorkerSettings
from worker.errors import LeaseLost
from worker.queue import keys
from worker.queue.affinity import NO_WEIGHTS, Weights
from worker.queue.keys import Queue, Stage
from worker.queue.scripts import Scripts

State = Literal["in_queue", "in_progress", "succeeded", "failed", "cancelled"]
"""`in_queue` until a GPU worker takes the request; `in_progress` from then on, the finish stage included."""

Standing = Literal["held", "passed", "gone", "cancelled", "fenced"]

EXPAND = "zturbo/expand"
CONTROL_MAP = "zturbo/preprocess"
"""In place of a model id: a caller waits for it, and no picture comes of it. In no list, soon forgotten."""

TaskKind = Literal["picture", "control_map", "expansion"]
"""What a worker does for a request."""
_KINDS: dict[str, TaskKind] = {EXPAND: "expansion", CONTROL_MAP: "control_map"}

FINAL_STATES: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

DAY_SECONDS = 86_400

RECORD_VERSION = 2
"""Of the records that this code submits. One without a version is 0, from before there was one; what differs
between versions is told in docs/upgrades.md. A worker takes no request of a newer version than its own."""


@dataclass(frozen=True)
class Record:
    """One request as it stood when it was read."""

    id: str
    model_id: str
    owner: str
    input: dict[str, Any]
    warnings: tuple[str, ...]
    state: State
    stage: Stage
    attempt: int
    """Times the present stage was begun."""
    sequence: int
    """Number of its submission: larger is newer."""
    step: int
    total_steps: int | None
    created_at: float
    """Unix seconds by Redis's clock, as the next two."""
    started_at: float | None
    finished_at: float | None
    position: int | None = None
    """Requests ahead of it; None unless it is `in_queue`."""
    prepared: dict[str, Any] = field(default_factory=dict)
    """What the prepare stage made; empty before its end, as the next."""
    generated: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    """`type` and `message`, when the state is `failed`."""
    version: int = 0
    spent: dict[Stage, float] = field(default_factory=dict)
    """Seconds that it was in a worker's hands at each stage, all attempts together; not before version 1."""
    expires_at: float | None = None
    """Unix seconds when it is forgotten, and its files with it; None until it is final."""
    webhook: dict[str, str] | None = None
    """`url`, and the `base` and `dialect` of what is sent there."""
    deliveries: tuple[dict[str, Any], ...] = ()
    """Each attempt to send it: `at` (Unix seconds), and `status` (HTTP) or `error`."""

    @property
    def kind(self) -> TaskKind:
        return _KINDS.get(self.model_id, "picture")

    @property
    def gpu_seconds(self) -> float | None:
        """Time on a GPU, that of attempts which came to nothing included; None while it is not final."""
        return self.spent.get("generate", 0.0) if self.finished_at and self.version else None

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage, as far as it came; once there is a picture, with the parts of its generation."""
        parts: dict[str, float] = (self.output or {}).get("timings", {})
        return {
            stage: spent for stage, spent in self.spent.items() if not (parts and stage == "generate")
        } | parts

    @property
    def images(self) -> list[dict[str, Any]]:
        """Files of the pictures, in the order of their seeds; none before they are there."""
        output = self.output or {}
        images: list[dict[str, Any]] = output.get("images", [output["image"]] if "image" in output else [])
        return images

    @property
    def file_ids(self) -> tuple[str, ...]:
        """Files that the request made; those of its input may serve other requests too.

        Without an output, those that a worker may have written before the request ended otherwise.
        """
        if self.output is None:
            return tuple(self.generated.get("file_ids", {}).values())
        made = [*self.images, (self.output or {}).get("control_image")]
        return tuple(file["file_id"] for file in made if file)


def parse(fields: Mapping[str, str], retention_days: float, position: int | None = None) -> Record:
    """A record from its hash in Redis."""

    def seconds(name: str) -> float | None:
        return int(fields[name]) / 1000 if name in fields else None

    def data(name: str) -> Any:
        return json.loads(fields[name]) if name in fields else None

    finished_at = seconds("finished_at")
    return Record(
        id=fields["id"],
        model_id=fields["model_id"],
        owner=fields["owner"],
        input=data("input"),
        warnings=tuple(data("warnings")),
        state=fields["state"],  # type: ignore[arg-type]  # written by our scripts alone
        stage=fields["stage"],  # type: ignore[arg-type]
        attempt=int(fields["attempt"]),
        sequence=int(fields["sequence"]),
        step=int(fields["step"]),
        total_steps=int(fields["total_steps"]) if "total_steps" in fields else None,
        created_at=int(fields["created_at"]) / 1000,
        started_at=seconds("started_at"),
        finished_at=finished_at,
        position=position if fields["state"] == "in_queue" else None,
        prepared=data("prepared") or {},
        generated=data("generated") or {},
        output=data("output"),
        error=data("error"),
        webhook=data("webhook"),
        deliveries=tuple(_deliveries(fields)),
        version=int(fields.get("version", 0)),
        spent={stage: spent for stage in get_args(Stage) if (spent := seconds(f"spent:{stage}")) is not None},
        expires_at=finished_at + retention_days * DAY_SECONDS if finished_at else None,
    )


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """A hash as a script returns it: field, value, field, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _deliveries(fields: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    number = 1
    while attempt := fields.get(f"delivery:{number}"):
        yield json.loads(attempt)
        number += 1


class Reaped(NamedTuple):
    """What one look at the leases did, and the bells that each queue lacks."""

    handed_back: int
    failed: int
    bells: dict[Queue, int]


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
        known = RECORD_VERSION
        fields = self._scripts.run("next", queue, token, worker_id, self._lease_ms, known, "/".join(held))
        return self._parse(pairs(fields)) if fields else None

    def beat(
        self, request_id: str, token: str, step: int = 0, total_steps: int = 0, preview: bytes = b""
    ) -> Standing:
        """Extends the lease and writes the progress, if the token still holds the request.

        `preview` is a JPEG of what the picture looks like after that step.
        """
        progress = (step, total_steps, base64.b64encode(preview).decode())
        standing: Standing = self._scripts.run("beat", request_id, token, self._lease_ms, *progress)
        return standing

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
        fields = [field, json.dumps(made), *(["weights", "/".join(weights)] if weights else [])]
        standing, bells = self._scripts.run("advance", request_id, token, stage, *fields)
        _require(standing, request_id)
        return int(bells)

    def finish(self, request_id: str, token: str, output: dict[str, Any]) -> None:
        """Succeeded. Raises LeaseLost when the token no longer holds the request."""
        self._close(request_id, token, "succeeded", "output", output)

    def fail(self, request_id: str, token: str, error_type: str, message: str) -> None:
        """Failed. Raises LeaseLost when the token no longer holds the request."""
        self._close(request_id, token, "failed", "error", {"type": error_type, "message": message})

    def _close(self, request_id: str, token: str, state: State, field: str, value: dict[str, Any]) -> None:
        standing = self._scripts.run("close", request_id, token, state, field, json.dumps(value))
        _require(standing, request_id)

    def release(self, request_id: str, token: str) -> None:
        """Back to the front of its queue, as if it had not been taken; nothing when the token lost it."""
        self._scripts.run("release", request_id, token)

    def reap(self, turn_seconds: float) -> Reaped | None:
        """Takes requests from workers that fell silent; None when another process did so in this turn."""
        turn_ms = int(turn_seconds * 1000)
        answer = self._scripts.run("reap", self._lease_ms, self._settings.max_attempts, turn_ms)
        if not answer:
            return None
        handed_back, failed, io, gpu = answer
        return Reaped(handed_back, failed, {"io": io, "gpu": gpu})

    def declare_dead(self, queue: Queue, id_prefix: str) -> int:
        """A worker whose id begins so is known to be dead: its requests wait for no lease to run out.

        Returns how many it held; they are handed back at the next turn of `reap`.
        """
        held: int = self._scripts.run("declare_dead", queue, id_prefix)
        return held

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
        return bool(self._scripts.run("turn", task, int(seconds * 1000)))

    def forget_expired(self, limit: int) -> list[Record]:
        """Deletes records whose time is over, so many at most; their files are the caller's to delete."""
        retention_ms = int(self._settings.retention_days * DAY_SECONDS * 1000)
        ids: list[str] = self._scripts.run("expired", retention_ms, limit)
        expired = [record for request_id in ids if (record := self.get(request_id))]
        for request_id in ids:
            self._scripts.run("delete", request_id)
        return expired


def _require(standing: Standing, request_id: str) -> None:
    if standing not in ("held", "passed"):
        raise LeaseLost(f"Request {request_id} was taken away from this worker ({standing}).", standing)
