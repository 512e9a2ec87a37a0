"""Sends the webhooks that are due, beside the calls that this process answers.

What is due stands in Redis: any API process sends it, and what one had in hand when it died another sends
again. So a receiver may get the same end of a request twice, with the same `webhook-id`.
"""

import asyncio
import json
import logging
import time
from contextlib import suppress
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread

from app.answers import result_body
from app.config import Settings
from app.fal import bodies
from app.links import Links
from worker import logs
from worker.cancellation import cancelled
from worker.errors import FetchError, StoreUnavailable
from worker.inputs.guard import AllowList
from worker.queue.record import Record
from worker.queue.requests import RequestStore
from worker.secret import Secret
from worker.webhooks import GONE, next_pause, post, sign

LOOK_SECONDS = 0.5
LEASE_SECONDS = 60.0
"""Longer than one attempt can take."""

AT_ONCE = 32

log = logging.getLogger("zturbo")


class Webhooks:
    """Runs from `start` to `stop`."""

    def __init__(self, requests: RequestStore, settings: Settings, secret: Secret) -> None:
        self._requests = requests
        self._allowed = AllowList.parse(settings.allow_hosts)
        self._secret = secret
        # Threads of their own: receivers that do not answer would keep all that submits need.
        self._threads = CapacityLimiter(AT_ONCE)
        self._sending: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        # First the one that starts others.
        await cancelled(self._task)
        await cancelled(*self._sending)

    async def _run(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                for request_id in await self._requests.due_webhooks(
                    AT_ONCE - len(self._sending), LEASE_SECONDS
                ):
                    task = asyncio.create_task(self._send(request_id))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
            await asyncio.sleep(LOOK_SECONDS)

    async def _send(self, request_id: str) -> None:
        logs.request_id.set(request_id)
        try:
            record = await self._requests.get(request_id)
            if record is None or record.webhook is None:
                return
            attempt = await self._try(record, record.webhook)
            over = 200 <= attempt.get("status", 0) < 300 or attempt.get("status") == GONE
            number = len(record.deliveries) + 1
            pause = None if over else next_pause(number, time.time() - (record.finished_at or 0))
            await self._requests.delivered(request_id, number, attempt, pause)
        except StoreUnavailable:
            log.info("a webhook's outcome could not be written; it is sent again")

    async def _try(self, record: Record, webhook: dict[str, str]) -> dict[str, Any]:
        attempt: dict[str, Any] = {"at": time.time()}
        try:
            body = webhook_body(record, webhook)
            headers = sign(self._secret.derive("webhook", record.owner), record.id, body)
            send = partial(post, webhook["url"], headers, body, self._allowed)
            attempt["status"] = await to_thread.run_sync(send, abandon_on_cancel=True, limiter=self._threads)
        except FetchError as error:
            attempt["error"] = str(error)
        except Exception:
            # Counted as any other attempt, so that it is tried ever less often, and in the end no more.
            log.exception("a webhook could not be sent")
            attempt["error"] = "webhook: this server failed to send it; its log says why."
        return attempt


def webhook_body(record: Record, webhook: dict[str, str]) -> bytes:
    """What is posted: the result as its route answers it, its URLs under the base that the caller used."""
    links = Links(webhook["base"])
    if webhook["dialect"] == bodies.DIALECT:
        body = bodies.webhook_body(record, links)
    else:
        body = result_body(record, links, include_cost=False).wire()
    return json.dumps(body).encode()
