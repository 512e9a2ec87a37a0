"""The bodies of answers, made from a request's record: the only place where the two vocabularies meet."""

import time
from datetime import UTC, datetime
from typing import Any

from app.links import Links
from app.schemas import (
    Attempt,
    EventBody,
    Failure,
    Output,
    RequestBody,
    RequestStatus,
    ResultBody,
    StatusBody,
    WebhookBody,
)
from models.errors import CheckpointError, WeightsMissing
from worker.errors import StorageError
from worker.queue.follow import Snapshot
from worker.queue.record import Record, State

STATUS_WORDS: dict[State, RequestStatus] = {
    "in_queue": "in_queue",
    "in_progress": "in_progress",
    "succeeded": "completed",
    # The published status route has no word for it: a client that waits for `completed` would wait for ever.
    "failed": "completed",
    "cancelled": "cancelled",
}


OUR_FAULTS = (
    *("internal_error", "worker_crashed"),
    *(StorageError.code, WeightsMissing.code, CheckpointError.code),
)
"""Errors of a request that no other body would have spared it."""


def status_body(record: Record, links: Links) -> StatusBody:
    return StatusBody(
        request_id=record.id,
        status=STATUS_WORDS[record.state],
        queue_position=record.position,
        note=record.note,
        status_url=links.request(record.id, "status"),
        result_url=links.request(record.id, "result"),
        progress=progress(record),
        step=record.step if record.total_steps else None,
        total_steps=record.total_steps,
        eta_seconds=eta_seconds(record),
        created_at=timestamp(record.created_at),
        started_at=timestamp(record.started_at) if record.started_at else None,
        error=failure(record),
    )


def warnings_of(record: Record) -> list[str]:
    """What was ignored or changed: at the submit, and then by those who made the picture."""
    return [*record.warnings, *(record.output or {}).get("warnings", [])]


def result_body(record: Record, links: Links, include_cost: bool) -> ResultBody:
    made: dict[str, Any] = record.output or {}
    control_image = made.get("control_image")
    return ResultBody(
        request_id=record.id,
        status=record.state,
        output=_output(record.images, links) if record.state == "succeeded" else None,
        error=failure(record),
        created_at=timestamp(record.created_at),
        eta_seconds=eta_seconds(record),
        finished_at=timestamp(record.finished_at) if record.finished_at else None,
        expires_at=timestamp(record.expires_at) if record.expires_at else None,
        model_id=record.model_id,
        seed=made.get("seed"),
        seeds=made.get("seeds"),
        model=made.get("model"),
        dtype=made.get("dtype"),
        fast_path=made.get("fast_path"),
        expanded_prompt=made.get("expanded_prompt"),
        strength=made.get("strength"),
        control_image=file_url(control_image, links) if control_image else None,
        controlnet=made.get("controlnet"),
        loras=made.get("loras"),
        timings=record.timings or None,
        gpu_seconds=record.gpu_seconds,
        warnings=warnings_of(record) or None,
        webhook=webhook(record),
        cost=0 if include_cost else None,
    )


def _output(images: list[dict[str, Any]], links: Links) -> Output:
    urls = [file_url(image, links) for image in images]
    return Output(image=urls[0]) if len(urls) == 1 else Output(images=urls)


def event_body(moment: Snapshot, links: Links) -> EventBody:
    preview = f"data:image/jpeg;base64,{moment.preview}" if moment.preview else None
    return EventBody(**status_body(moment.record, links).wire(), preview=preview)


def request_body(record: Record, links: Links) -> RequestBody:
    return RequestBody(**result_body(record, links, include_cost=False).wire(), input=record.input)


def progress(record: Record) -> float:
    """Share of the denoising steps that are done."""
    if record.state == "succeeded":
        return 1.0
    return round(record.step / record.total_steps, 3) if record.total_steps else 0.0


def eta_seconds(record: Record) -> float | None:
    """What is left of the worker's estimate now; None while there is none."""
    if record.state != "in_progress" or record.due_at is None:
        return None
    return round(max(0.0, record.due_at - time.time()), 1)


def failure(record: Record) -> Failure | None:
    return Failure(**record.error) if record.error else None


def failure_of(record: Record) -> dict[str, str] | None:
    """`type` and `message` of a request that has ended without a picture, cancelled ones among them."""
    if record.state == "cancelled":
        return {"type": "cancelled", "message": "The request was cancelled."}
    return record.error if record.state == "failed" else None


def webhook(record: Record) -> WebhookBody | None:
    if record.webhook is None:
        return None
    attempts = [Attempt(**each | {"at": timestamp(each["at"])}) for each in record.deliveries]
    return WebhookBody(url=record.webhook["url"], attempts=attempts)


def file_url(file: dict[str, Any], links: Links) -> str:
    return links.file(file["file_id"], file["name"])


def timestamp(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC, to the second: 2026-01-17T00:00:00Z, as published."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
