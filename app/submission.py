"""The steps that every dialect's submit route takes: read the body, check it, put the request in line.

An Idempotency-Key is the caller's own name for a submit: sent again, it gets the same request and no second.
"""

import asyncio
import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.answers import OUR_FAULTS, failure_of
from app.errors import (
    BadInput,
    NotInTime,
    NotMade,
    NotMadeHere,
    Unavailable,
    bad_field,
    bad_input,
    faults,
)
from app.http.body import read_json
from app.http.in_flight import share_of
from app.links import links_of
from app.prechecks import check_now
from models.command import zturbo
from models.errors import SizeError, WeightsMissing
from models.schema.inputs import Input, read_input
from worker import logs
from worker.cancellation import cancelled
from worker.errors import FetchError, ImageError, StoreUnavailable
from worker.inputs.guard import AllowList
from worker.queue.follow import outcome
from worker.queue.outages import new_request_id
from worker.queue.record import FINAL_STATES, Record
from worker.queue.requests import CallersKey, RequestStore, Taken
from worker.storage.pictures import Storage
from worker.storage.workspace import holds_picture, large_pictures
from worker.webhooks import judge_url

MAX_KEY_CHARACTERS = 255
MAX_URL_CHARACTERS = 2048
MAX_WAIT_SECONDS = 300.0
PREFERRED_WAIT_SECONDS = 60.0
"""What a bare `Prefer: wait` asks for."""

HELD_SECONDS = 600.0
"""After so long a call that is held without a limit looks whether there is a worker to wait for."""

BAD_IMAGE = (FetchError.code, ImageError.code, SizeError.code)
"""Errors of a record that are the caller's to mend; each names the field before a colon."""

_PREFERENCE = re.compile(r"(?:^|[,;])\s*wait\s*(?:=\s*(\d{1,6})\s*)?(?:$|[,;])", re.IGNORECASE)


@dataclass(frozen=True)
class Parameter:
    """A query parameter or a header of a submit, which may be left out.

    Read by ourselves: FastAPI's own reading of four of them takes a fourteenth of a submit.
    """

    place: Literal["query", "header"]
    name: str
    kind: TypeAdapter[Any]
    description: str

    def read(self, call: Request) -> Any:
        """Its value, None when it is not sent. Raises BadInput."""
        sent = (call.query_params if self.place == "query" else call.headers).get(self.name)
        if sent is None:
            return None
        try:
            return self.kind.validate_python(sent)
        except ValidationError as error:
            where = (self.place, self.name)
            raise faults([{**fault, "loc": where} for fault in error.errors(include_url=False)]) from None

    def documented(self) -> dict[str, Any]:
        """The parameter object that the OpenAPI document has for it."""
        about = {"name": self.name, "in": self.place, "description": self.description}
        return about | {"required": False, "schema": self.kind.json_schema()}


WAIT = Parameter(
    "query",
    "wait",
    TypeAdapter(Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)]),
    "Hold the call so many seconds, or until the request is done.",
)
PREFER = Parameter("header", "Prefer", TypeAdapter(str), "`wait=SECONDS` (RFC 7240).")
IDEMPOTENCY_KEY = Parameter(
    "header",
    "Idempotency-Key",
    TypeAdapter(Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARACTERS)]),
    "For 24 hours the same key and body give the same request.",
)
WEBHOOK = Parameter(
    "query",
    "webhook",
    TypeAdapter(Annotated[str, Field(max_length=MAX_URL_CHARACTERS)]),
    "URL that the result is posted to, signed.",
)


class Submission:
    """One call that submits: its checked body, and its way into the line.

    Made by the route, as it is no dependency: each one more costs a twentieth of a submit.
    """

    def __init__(self, call: Request) -> None:
        """Raises BadInput for a parameter."""
        self.wait: float | None = WAIT.read(call)
        """Seconds to hold the call, 0: not at all; None when nothing is said."""
        if self.wait is None:
            self.wait = _preferred(PREFER.read(call) or "")
        self.links = links_of(call)
        self._call = call
        self._owner: str = call.state.owner
        self._key: str | None = IDEMPOTENCY_KEY.read(call)
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
    ) -> tuple[Taken, list[str]]:
        """Puts the body in line, and holds it no more; with `read`'s warnings.

        `webhook` is what the method of that name has read. Raises what `read` does, Refused and KeyReused.
        """
        checked, warnings = await self.read(schema)
        body = checked.model_dump(mode="json")
        return await self.put(model_id, body, warnings, webhook, dialect), warnings

    async def put(
        self,
        model_id: str,
        body: dict[str, Any],
        warnings: list[str],
        webhook: str | None = None,
        dialect: str = "hosted",
    ) -> Taken:
        """Puts a checked input in line. Raises Refused, KeyReused, StorageError and DiskFull."""
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
        return taken

    def webhook(self, parameter: Parameter = WEBHOOK) -> str | None:
        """The URL that the result is to be posted to. Raises BadInput."""
        url: str | None = parameter.read(self._call)
        if not url:
            return None
        try:
            judge_url(url, parameter.name, AllowList.parse(self._call.app.state.settings.allow_hosts))
        except FetchError as error:
            fault = {"loc": [parameter.place, parameter.name], "msg": str(error), "type": "webhook"}
            raise BadInput(str(error), detail=[fault]) from None
        return url

    async def run(self, model_id: str, checked: BaseModel) -> dict[str, Any]:
        """The output of a task that makes no picture (EXPAND, CONTROL_MAP), waited for and then forgotten.

        Raises Refused, BadInput when the caller's image is no good or the map cannot be made here, and
        Unavailable when it fails otherwise or is not there in time.
        """
        request_id = new_request_id()
        logs.request_id.set(request_id)
        await self._requests.submit(request_id, model_id, checked.model_dump(mode="json"), self._owner, [])
        try:
            record = await self.outcome(request_id, self.wait)
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
            seconds = _limit(self.wait)
            busy = (
                f"No gpu worker came to this within {seconds:g} s; `{zturbo()} top` shows how busy they are."
            )
            raise Unavailable(error["message"] if error else busy)
        return record.output or {}

    async def outcome(self, request_id: str, seconds: float | None) -> Record | None:
        """The record when it is final, or as it is after so many seconds.

        With None it is waited for as long as there is a gpu worker: on a processor the picture before it may
        take an hour. When the caller hangs up meanwhile, the request is cancelled unless its Idempotency-Key
        lets him come back for it; raises ClientDisconnect.
        """
        waiting = asyncio.create_task(self._wait(request_id, seconds))
        leaving = asyncio.create_task(self._hang_up())
        try:
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            await cancelled(waiting, leaving)
        await self.leave(request_id)
        raise ClientDisconnect

    async def _wait(self, request_id: str, seconds: float | None) -> Record | None:
        while True:
            record = await outcome(self._requests, request_id, _limit(seconds))
            if seconds is not None or record is None or record.state in FINAL_STATES:
                return record
            with suppress(StoreUnavailable):
                if not any(worker.kind == "gpu" for worker in await self._requests.workers()):
                    return record

    async def finished(self, request_id: str) -> Record:
        """The record of a request that succeeded, for a caller who wants the picture itself.

        Raises NotInTime when the time that the caller gave it is up, and it goes on; NotMade or NotMadeHere
        when it came to nothing; and as `outcome`.
        """
        record = await self.outcome(request_id, self.wait)
        if record is None or record.state not in FINAL_STATES:
            raise NotInTime(_limit(self.wait), request_id)
        check_made(record)
        return record

    async def leave(self, request_id: str) -> None:
        """Cancels the request of a caller who has hung up, if nobody can come back for it."""
        if self._key is None:
            await self._requests.cancel(request_id, force=True)

    async def _hang_up(self) -> None:
        """Returns when the caller, whose body is read, has hung up."""
        while (await self._call.receive())["type"] != "http.disconnect":
            pass


def check_made(record: Record) -> None:
    """Raises NotMade or NotMadeHere for a request that has ended without a picture."""
    if failure := failure_of(record):
        raise (NotMadeHere if failure["type"] in OUR_FAULTS else NotMade)(failure["message"])


def read_pictures(record: Record, storage: Storage) -> list[bytes]:
    """The files of a request that succeeded. Raises NotMade when one is gone, and StorageError."""
    pictures = [storage.read(image["file_id"], image["name"]) for image in record.images]
    if None in pictures:
        raise NotMade("The picture was deleted before it could be sent.")
    return [picture for picture in pictures if picture is not None]


def _limit(seconds: float | None) -> float:
    return HELD_SECONDS if seconds is None else seconds


def _preferred(prefer: str) -> float | None:
    """The seconds in a header `Prefer`."""
    preference = _PREFERENCE.search(prefer)
    if preference is None:
        return None
    return min(float(preference[1] or PREFERRED_WAIT_SECONDS), MAX_WAIT_SECONDS)


def _digest(model_id: str, body: dict[str, Any], webhook: str | None) -> str:
    """A hash by which a body that is sent again is known."""
    # Hashed by themselves: other threads run meanwhile, as they do not while JSON is written.
    body = body | {
        field: hashlib.sha256(url.encode()).hexdigest() for field, url in large_pictures(body).items()
    }
    return hashlib.sha256(json.dumps([model_id, body, webhook], sort_keys=True).encode()).hexdigest()
