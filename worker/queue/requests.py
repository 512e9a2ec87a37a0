"""The API's moves on requests: submit, read, cancel, list, count, delete. All async.

Every method raises `StoreUnavailable` when Redis cannot be reached.
The workers' moves are in `worker.queue.work_queue`.
"""

import asyncio
import hashlib
import json
import logging
from dataclasses import replace
from typing import Any, NamedTuple

import redis.asyncio
from pydantic_core import to_json

from models.errors import DiskFull
from worker.config import DAY_SECONDS, WorkerSettings
from worker.errors import KeyReused, Refused
from worker.queue import keys, scripts
from worker.queue.changes import Changes
from worker.queue.connection import DEFAULT_REDIS_URL, RedisGate, connect_async
from worker.queue.doorbell import Doorbells
from worker.queue.keys import Queue
from worker.queue.outages import Outage, outage_at
from worker.queue.record import RECORD_VERSION, REQUEST_ID, Record, State, parse
from worker.queue.registry import WorkerInfo, model_note, read_workers
from worker.queue.scripts import AsyncScripts, Cancellation, NotQueued, Queued
from worker.queue.stats import Stats, read_stats
from worker.storage import location
from worker.storage.backend import open_objects
from worker.storage.workspace import Detached, Workspace, holds_picture

log = logging.getLogger(__name__)

KEY_SECONDS = 86_400
"""How long an Idempotency-Key stands for the request that it made."""

SHARE_FULL = (
    "This key's uploads and the pictures in its unfinished requests would take up more than half of the disk "
    "that can be used; send it when requests of this key have ended, or its uploads have expired."
)

LIST_BATCH = 100
"""Records read at once while a list looks for those in one state."""
LIST_BATCHES = 20


class CallersKey(NamedTuple):
    """A caller's own name for a submit: sent again, it gets the same request and no second."""

    key: str
    digest: str
    """A hash of all that the submit says, without white space."""


class Taken(NamedTuple):
    request_id: str
    position: int
    """Requests ahead of it."""


class Page(NamedTuple):
    records: list[Record]
    cursor: str | None
    """Give it to the next call; None when there is nothing more."""


class RequestStore:
    """One for a server; `close` it at the end."""

    def __init__(self, client: redis.asyncio.Redis, bells: Doorbells, settings: WorkerSettings) -> None:
        self._client = client
        self._bells = bells
        self._settings = settings
        self._scripts = AsyncScripts(client)
        self._gate = RedisGate()
        self._workspace = Workspace(open_objects(settings))
        self.changes = Changes(client)

    @classmethod
    def connect(cls, settings: WorkerSettings) -> "RequestStore":
        """Nothing is sent to Redis until the first call."""
        redis_url = settings.redis_url or DEFAULT_REDIS_URL
        return cls(connect_async(redis_url), Doorbells(redis_url), settings)

    async def close(self) -> None:
        await self.changes.close()
        await self._client.aclose()
        await asyncio.to_thread(self._bells.close)

    async def ping(self) -> None:
        """Raises StoreUnavailable unless Redis answers and can write its append-only file."""
        async with self._gate:
            await self._client.set(keys.PING, "1", px=1000)

    async def tell_storage(self) -> None:
        """Tells workers where this server keeps what they share with it."""
        place = await asyncio.to_thread(location.publish, self._settings)
        async with self._gate:
            await self._client.set(keys.STORAGE, place)

    async def submit(
        self,
        request_id: str,
        model_id: str,
        input: dict[str, Any],
        owner: str,
        warnings: list[str],
        webhook: dict[str, str] | None = None,
        key: CallersKey | None = None,
    ) -> Taken:
        """Puts a request in line, or finds the one that `key` stands for.

        The same id again changes nothing, so a submit whose answer was lost can be repeated. `input` is JSON
        as `model_dump(mode="json")` gives it. Raises Refused, KeyReused when the key was used with another
        digest in the last 24 hours, StorageError, and DiskFull when there is no room for the picture in it,
        or none that one key may have.
        """
        if not REQUEST_ID.fullmatch(request_id):
            raise ValueError(f"not a request id: {request_id!r}")
        kept = Detached(input)
        if holds_picture(input):
            kept = await asyncio.to_thread(self._workspace.detach_pictures, request_id, input)
        fields = {
            "version": str(RECORD_VERSION),
            "model_id": model_id,
            "input": to_json(kept.body).decode(),
            "warnings": to_json(warnings).decode(),
        }
        if webhook:
            fields["webhook"] = json.dumps(webhook)
        call = scripts.submit(
            id=request_id,
            owner=owner,
            key=_owners_key(owner, key.key) if key else "",
            digest=key.digest if key else "",
            key_seconds=KEY_SECONDS,
            most=self._settings.max_queue,
            most_of_owner=self._settings.max_queue_per_key or 0,
            most_in_minute=self._settings.max_submits_per_minute or 0,
            size=kept.size,
            spare=kept.spare,
            fields=fields,
        )
        async with self._gate:
            answer = await self._scripts.run(call)
        if kept.size and not (isinstance(answer, Queued) and answer.id == request_id):
            await asyncio.to_thread(self._workspace.remove, request_id)
        if isinstance(answer, NotQueued):
            raise self._refusal(answer)
        if answer.bells_missing:
            await self._ring("io")
        return Taken(answer.id, answer.ahead)

    async def count_upload(self, owner: str, file_id: str, size: int, spare: int | None) -> None:
        """Counts a file of `size` bytes towards what its owner keeps here, until it expires.

        `spare` is what callers might have sent just before it. Raises DiskFull when one key may not have so
        much of that.
        """
        keep_ms = int(self._settings.retention_days * DAY_SECONDS * 1000)
        call = scripts.count_upload(owner=owner, file_id=file_id, size=size, spare=spare, keep_ms=keep_ms)
        async with self._gate:
            has_room = await self._scripts.run(call)
        if not has_room:
            raise DiskFull(SHARE_FULL)

    def _refusal(self, answer: NotQueued) -> Refused | KeyReused | DiskFull:
        settings = self._settings
        match answer.why:
            case "key_reused":
                return KeyReused("Idempotency-Key: this key was used for another body in the last 24 hours.")
            case "no_room":
                return DiskFull(SHARE_FULL)
            case "line_full":
                reason = f"{settings.max_queue} requests are waiting already"
            case "share_full":
                reason = f"{settings.max_queue_per_key} requests of this key are waiting already"
            case "too_fast":
                reason = f"This key may submit {settings.max_submits_per_minute} requests a minute"
        return Refused(f"{reason}; try again in {answer.seconds} s.", answer.seconds)

    async def due_webhooks(self, limit: int, lease_seconds: float) -> list[str]:
        """Ids of requests whose caller is to be told now; nobody else gets them for so long."""
        async with self._gate:
            return await self._scripts.run(scripts.due(limit=limit, lease_ms=int(lease_seconds * 1000)))

    async def delivered(
        self, request_id: str, number: int, attempt: dict[str, Any], again_in: float | None
    ) -> None:
        """Writes what came of attempt `number` (from 1); the next is in so many seconds, if there is one."""
        pause_ms = None if again_in is None else int(again_in * 1000)
        call = scripts.delivered(id=request_id, number=number, attempt=json.dumps(attempt), pause_ms=pause_ms)
        async with self._gate:
            await self._scripts.run(call)

    async def _ring(self, queue: Queue) -> None:
        try:
            await asyncio.to_thread(self._bells.ring, queue)
        except Exception as error:
            # The record is written, and the workers ring what is missing within a second.
            log.warning("no bell for the %s queue: %s", queue, error)

    async def get(self, request_id: str) -> Record | None:
        """None when the id is unknown, deleted or expired."""
        records = await self._read([request_id])
        return records[0] if records else None

    async def outage_at(self, request_id: str) -> Outage | None:
        """When Redis may have lost a request of this id, as far as the last day is concerned."""
        async with self._gate:
            return await outage_at(self._client, request_id)

    async def watch(self, request_id: str, seconds: float) -> None:
        """Somebody looks at the request's previews from now on, for so long."""
        async with self._gate:
            await self._client.set(keys.WATCHED + request_id, "1", px=int(seconds * 1000))

    async def preview(self, request_id: str) -> str | None:
        """What the picture looks like after its last step, a JPEG in base64, if there is one."""
        async with self._gate:
            preview: Any = await self._client.get(keys.PREVIEW + request_id)
        return preview  # type: ignore[no-any-return]  # a string: answers are decoded

    async def cancel(self, request_id: str, force: bool = False) -> Cancellation | None:
        """Cancels what is in the queue, and with `force` also what is in progress. None: unknown id.

        What a cancelled request had sent is deleted with it.
        """
        async with self._gate:
            cancellation = await self._scripts.run(scripts.cancel(id=request_id, force=force))
        if cancellation and cancellation.state == "cancelled":
            await asyncio.to_thread(self._workspace.remove, request_id)
        return cancellation

    async def delete(self, request_id: str) -> bool:
        """Forgets a finished request; its files are the caller's to delete. False while it is unfinished."""
        async with self._gate:
            outcome = await self._scripts.run(scripts.delete(id=request_id))
        if outcome == "active":
            return False
        # What the end of the request could not clear away, because its store was away for instance.
        await asyncio.to_thread(self._workspace.remove, request_id)
        return True

    async def list_owned(
        self, owner: str, state: State | None = None, limit: int = 20, cursor: str | None = None
    ) -> Page:
        """An owner's requests, newest first. Raises ValueError for a cursor that is none of ours.

        A page may be short although there is more: only so many records are looked through at once.
        """
        newest = f"({int(cursor)}" if cursor else "+inf"
        found: list[Record] = []
        for _ in range(LIST_BATCHES):
            async with self._gate:
                ids: Any = await self._client.zrange(
                    keys.OWNER + owner, newest, "-inf", desc=True, byscore=True, offset=0, num=LIST_BATCH
                )
            for record in await self._read(ids):
                newest = f"({record.sequence}"
                if record.kind == "picture" and state in (None, record.state):
                    found.append(record)
                if len(found) > limit:
                    return Page(found[:limit], str(found[limit - 1].sequence))
            if len(ids) < LIST_BATCH:
                return Page(found, None)
        return Page(found, newest.removeprefix("("))

    async def _read(self, ids: list[str]) -> list[Record]:
        async with self._gate:
            pipe = self._client.pipeline(transaction=True)
            for request_id in ids:
                pipe.hgetall(keys.REQUEST + request_id)
                pipe.zrank(keys.LINE, request_id)
            answers = await pipe.execute()
        records = [
            parse(fields, self._settings.retention_days, rank)
            for fields, rank in zip(answers[::2], answers[1::2], strict=True)
            if fields
        ]
        if not any(record.position == 0 for record in records):
            return records
        note = model_note(await self.workers())
        return [replace(record, note=note) if record.position == 0 else record for record in records]

    async def workers(self) -> list[WorkerInfo]:
        """Those that are alive."""
        async with self._gate:
            return await read_workers(self._client)

    async def stats(self) -> Stats:
        async with self._gate:
            return await read_stats(self._client)


def _owners_key(owner: str, key: str) -> str:
    return hashlib.sha256(f"{len(owner)}:{owner}{key}".encode()).hexdigest()
