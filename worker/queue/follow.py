"""One request watched from now until its end: each state of its record as soon as it is there."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple

import anyio

from worker.errors import StoreUnavailable
from worker.queue.record import FINAL_STATES, Record
from worker.queue.requests import RequestStore

LOOK_SECONDS = 10.0
"""The record is read again after so long without news; news that went astray are late by this at most."""

WATCHED_SECONDS = 3 * LOOK_SECONDS
AWAY_SECONDS = 1.0


class Snapshot(NamedTuple):
    record: Record
    preview: str | None
    """JPEG in base64; only while it is `in_progress`, and only for those who ask for previews."""


async def follow(
    requests: RequestStore, request_id: str, previews: bool = False
) -> AsyncGenerator[Snapshot, None]:
    """The request as it is, then each change, to the final state; ends early when the record is deleted.

    While Redis is away it waits. Who gives up sooner just leaves.
    """
    last: Snapshot | None = None
    async with requests.changes.listen(request_id) as listener:
        while True:
            try:
                if listener.changed or last is None:
                    listener.changed = False
                    moment = await _look(requests, request_id, previews)
                    if moment is None:
                        return
                else:
                    moment = last._replace(record=replace(last.record, position=listener.position))
            except StoreUnavailable:
                listener.changed = True
                await anyio.sleep(AWAY_SECONDS)
                continue
            listener.position = moment.record.position
            if moment != last:
                last = moment
                yield moment
            if moment.record.state in FINAL_STATES:
                return
            if not await listener.wait(LOOK_SECONDS):
                listener.changed = True


async def outcome(requests: RequestStore, request_id: str, seconds: float) -> Record | None:
    """The record once it is final, or as it is after so many seconds; None when it is gone."""
    record = None
    async with aclosing(follow(requests, request_id)) as moments:
        with anyio.move_on_after(seconds):
            async for moment in moments:
                record = moment.record
    # The time may be shorter than one look takes.
    return record or await requests.get(request_id)


async def _look(requests: RequestStore, request_id: str, previews: bool) -> Snapshot | None:
    record = await requests.get(request_id)
    if record is None:
        return None
    preview = None
    if previews and record.state not in FINAL_STATES:
        await requests.watch(request_id, WATCHED_SECONDS)
        preview = await requests.preview(request_id) if record.state == "in_progress" else None
    return Snapshot(record, preview)
