"""The steps that every dialect's submit route takes: read the body, check it, put the request in line.

An Idempotency-Key is the caller's own name for a submit: sent again, it gets the same request and no second.
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from app.errors import BadInput, Unavailable, bad_field, bad_input
from app.http.body import read_json
from app.http.in_flight import share_of
from app.links import links_of
from app.prechecks import check_now
from models.errors import SizeError, WeightsMissing
from models.schema.inputs import Input, read_input
from worker import logs
from worker.errors import FetchError, ImageError
from worker.inputs.guard import AllowList
from worker.queue.follow import outcome
from worker.queue.outages import new_request_id
from worker.queue.record import Record
from worker.queue.requests import CallersKey, RequestStore, Taken
from worker.storage.workspace import holds_picture
from worker.webhooks import judge_url

MAX_KEY_CHARACTERS = 255
MAX_URL_CHARACTERS = 2048
MAX_WAIT_SECONDS = 300.0
PREFERRED_WAIT_SECONDS = 60.0
"""What a bare `Prefer: wait` asks for."""

BUSY = "No gpu worker came to this within {seconds:g} s; `zturbo top` shows how busy they are."

BAD_IMAGE = (FetchError.code, ImageError.code, SizeError.code)
"""Errors of a record that are the caller's to mend; each names the field before a colon."""

_PREFERENCE = re.compile(r"(?:^|[,;])\s*wait\s*(?:=\s*(\d{1,6})\s*)?(?:$|[,;])", re.IGNORECASE)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_CHARACTERS,
        description="For 24 hours the same key and body give the same request.",
    ),
]
WaitQuery = Annotated[
    float | None,
    Query(
        ge=0, le=MAX_WAIT_SECONDS, description="Hold the call so many seconds, or until the request is done."
    ),
]


WebhookQuery = Annotated[
    str | None,
    Query(max_length=MAX_URL_CHARACTERS, description="URL that the result is posted to, signed."),
]


class Submission:
    """One call that submits: its checked body, and its way into the line."""

    def __init__(self, call: Request, idempotency_key: str | None, wait: float | None) -> None:
        self.wait = wait
        """Seconds to hold the call, 0: not at all; None when nothing is said."""
        self.links = links_of(call)
        self._call = call
        self._owner: str = call.state.owner
        self._key = idempotency_key
        self._requests: RequestStore = call.app.state.requests

    async def read(self, schema: type[Input]) -> tuple[Input, list[str]]:
        """The input in the call's body, and a warning for each field that is ignored.

        Raises BadInput, BodyTooLarge, BodyTooSlow and Unavailable.
        """
        limit = self._call.app.state.settings.max_body_bytes
        try:
            checked, warnings = await read_json(self._call, limit, partial(read_input, schema))
        except ValidationError as error:
            raise bad_input(error) from None
        await check_now(checked, self._call.app)
        return checked, warnings

    async def submit(
        self,
        schema: type[Input],
        model_id: str,
        webhook: str | None,
        dialect: str,
        translate: Callable[[Input], BaseModel] | None = None,
    ) -> tuple[Taken, list[str]]:
        """Puts the body in line, as `translate` turns it, and holds it no more; with `read`'s warnings.

        Raises what `read` does, Refused, KeyReused, and BadInput for the webhook.
        """
        if webhook:
            self._check_webhook(webhook, "webhook" if dialect == "hosted" else f"{dialect}_webhook")
        checked, warnings = await self.read(schema)
        body = (translate(checked) if translate else checked).model_dump(mode="json")
        request_id = new_request_id()
        told = {"url": webhook, "base": self.links.base, "dialect": dialect} if webhook else None
        key = None
        if self._key is not None:
            said = (model_id, body, webhook)
            digest = await run_in_threadpool(_digest, *said) if holds_picture(body) else _digest(*said)
            key = CallersKey(self._key, digest)
        taken = await self._requests.submit(request_id, model_id, body, self._owner, warnings, told, key)
        share_of(self._call).release()
        logs.request_id.set(taken.request_id)
        return taken, warnings

    def _check_webhook(self, url: str, name: str) -> None:
        try:
            judge_url(url, name, AllowList.parse(self._call.app.state.settings.allow_hosts))
        except FetchError as error:
            fault = {"loc": ["query", name], "msg": str(error), "type": "webhook"}
            raise BadInput(str(error), detail=[fault]) from None

    async def run(self, model_id: str, checked: BaseModel) -> dict[str, Any]:
        """The output of a task that makes no picture (EXPAND, CONTROL_MAP), waited for and then forgotten.

        Raises Refused, BadInput when the caller's image is no good or the map cannot be made here, and
        Unavailable when it fails otherwise or takes longer than that.
        """
        seconds = PREFERRED_WAIT_SECONDS if self.wait is None else self.wait
        request_id = new_request_id()
        logs.request_id.set(request_id)
        await self._requests.submit(request_id, model_id, checked.model_dump(mode="json"), self._owner, [])
        try:
            record = await self.outcome(request_id, seconds)
        finally:
            await self._requests.cancel(request_id, force=True)
            await self._requests.delete(request_id)
        if record is None or record.state != "succeeded":
            error = record.error if record else None
            if error and error["type"] in BAD_IMAGE:
                raise bad_field(error["message"].partition(":")[0], error["message"])
            if error and error["type"] == WeightsMissing.code:
                # To send it again in two seconds brings no weights.
                raise bad_field("preprocess", error["message"])
            raise Unavailable(error["message"] if error else BUSY.format(seconds=seconds))
        return record.output or {}

    async def outcome(self, request_id: str, seconds: float) -> Record | None:
        """The record when it is final, or as it is after so long."""
        return await outcome(self._requests, request_id, seconds)


async def _submission(
    request: Request,
    idempotency_key: IdempotencyKey = None,
    wait: WaitQuery = None,
    prefer: Annotated[str, Header(description="`wait=SECONDS` (RFC 7240).")] = "",
) -> Submission:
    # All at once, and the owner as the router has found it: every dependency more costs a tenth of the call.
    return Submission(request, idempotency_key, _preferred(prefer) if wait is None else wait)


SubmissionDep = Annotated[Submission, Depends(_submission)]


def _preferred(prefer: str) -> float | None:
    """The seconds in a header `Prefer`."""
    preference = _PREFERENCE.search(prefer)
    if preference is None:
        return None
    return min(float(preference[1] or PREFERRED_WAIT_SECONDS), MAX_WAIT_SECONDS)


def _digest(model_id: str, body: dict[str, Any], webhook: str | None) -> str:
    """A hash by which a body that is sent again is known."""
    if holds_picture(body):
        # Hashed by itself: other threads run meanwhile, as they do not while JSON is written.
        body = body | {"image_url": hashlib.sha256(body["image_url"].encode()).hexdigest()}
    return hashlib.sha256(json.dumps([model_id, body, webhook], sort_keys=True).encode()).hexdigest()
