"""The request record, the one truth about a request, and how it is read from Redis.

Only the scripts of `worker.queue.scripts` write it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from worker.config import DAY_SECONDS
from worker.queue.keys import Stage

State = Literal["in_queue", "in_progress", "succeeded", "failed", "cancelled"]
"""`in_queue` until a GPU worker takes the request; `in_progress` from then on, the finish stage included."""

EXPAND = "zturbo/expand"
CONTROL_MAP = "zturbo/preprocess"
"""These two stand in place of a model id: a caller waits for the answer, no picture comes of it, and no list
has it."""

TaskKind = Literal["picture", "control_map", "expansion"]
"""What a worker does for a request."""
_KINDS: dict[str, TaskKind] = {EXPAND: "expansion", CONTROL_MAP: "control_map"}

FINAL_STATES: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

RECORD_VERSION = 3
"""Version of the records that this code submits; a record without one is of version 0. What differs between
versions is told in docs/upgrades.md. A worker takes no request of a newer version than its own."""


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
    due_at: float | None = None
    """When the picture is likely to be there; None before its first step, and in no record that is older."""
    position: int | None = None
    """Requests ahead of it; None unless it is `in_queue`."""
    note: str | None = None
    """What the next in line waits for besides its turn, as a sentence; not of its hash."""
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
        made = [*self.images, self.output.get("control_image")]
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
        due_at=seconds("due_at"),
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
