"""OpenAI's images API on the same records: its public clients work unmodified.

These calls are held until the picture is there. Clients send a lost one again without a key to know it by, so
who hangs up cancels his request.
"""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from anyio import CancelScope, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.answers import file_url, progress
from app.deps import RequestsDep, SettingsDep, StorageDep
from app.errors import ApiError, Unavailable
from app.http.body import read_json
from app.http.events import event_bytes, with_comments
from app.http.in_pieces import READING, JsonInPieces, counted, take
from app.openai import bodies
from app.openai.form import read_form
from app.prechecks import check_now
from app.schemas import errors_answered
from app.submission import Submission, check_made, read_pictures
from app.translation import Asked, in_words
from worker.errors import StorageError
from worker.queue.follow import follow
from worker.queue.record import FINAL_STATES, Record
from worker.queue.requests import RequestStore
from worker.storage.pictures import Storage

ANSWERS: dict[int | str, dict[str, Any]] = errors_answered(408, 413, 415, 429, 504, 507) | {
    200: {
        "model": bodies.ImagesBody,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "The pictures, or with `stream` events.",
    }
}

router = APIRouter(prefix="/v1/images", tags=["openai"])
open_router = APIRouter(prefix="/v1/images", include_in_schema=False)


@open_router.options("/generations")
async def look() -> Response:
    """Some clients ask for this, without a key, to see whether anybody is there."""
    return Response(status_code=204, headers={"Allow": "OPTIONS, POST"})


@router.post("/generations", responses=ANSWERS)
async def generate(
    call: Request,
    settings: SettingsDep,
    requests: RequestsDep,
    storage: StorageDep,
) -> Response:
    """Pictures of a prompt, in the answer itself."""
    submission = Submission(call)
    said, asked = await read_json(call, settings.max_body_bytes, bodies.read_generation)
    with in_words(bodies.WORDS["image_generation"]):
        await check_now(asked.checked, call.app)
        return await _answer("image_generation", said, asked, submission, call, requests, storage)


@router.post("/edits", responses=ANSWERS)
async def edit(
    call: Request,
    settings: SettingsDep,
    requests: RequestsDep,
    storage: StorageDep,
) -> Response:
    """Pictures that the form's image guides."""
    submission = Submission(call)
    said, asked = bodies.read_edit(await read_form(call, settings.max_body_bytes))
    with in_words(bodies.WORDS["image_edit"]):
        await check_now(asked.checked, call.app)
        return await _answer("image_edit", said, asked, submission, call, requests, storage)


async def _answer(
    event: bodies.Event,
    said: bodies.ImagesInput,
    asked: Asked,
    submission: Submission,
    call: Request,
    requests: RequestStore,
    storage: Storage,
) -> Response:
    taken = await submission.put(asked.endpoint.model_id, asked.body(), asked.warnings)
    if said.stream:
        events = _events(event, said.partial_images, taken.request_id, call, requests, storage)
        return _Stream(with_comments(events), submission, taken.request_id)
    record = await submission.finished(taken.request_id)
    if said.response_format == "url":
        pictures = [{"url": file_url(image, submission.links)} for image in record.images]
        return JSONResponse(bodies.answer_body(record, pictures))
    encoded = await to_thread.run_sync(_encoded, record, storage, limiter=READING)
    pictures = [{"b64_json": b64_json} for b64_json in encoded]
    return counted(JsonInPieces(bodies.answer_body(record, pictures)), call)


class _Stream(StreamingResponse):
    """The events of one request, which ends with the stream."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], submission: Submission, request_id: str) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._submission, self._request_id = submission, request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Of no consequence to a request that is finished.
            with CancelScope(shield=True):
                await self._submission.leave(self._request_id)


async def _events(
    event: bodies.Event,
    partial_images: int,
    request_id: str,
    call: Request,
    requests: RequestStore,
    storage: Storage,
) -> AsyncGenerator[bytes, None]:
    sent = 0
    async with aclosing(follow(requests, request_id, previews=partial_images > 0)) as moments:
        async for record, preview in moments:
            try:
                with in_words(bodies.WORDS[event]):
                    check_made(record)
                if record.state in FINAL_STATES:
                    encoded = await to_thread.run_sync(_encoded, record, storage, limiter=READING)
                    take(sum(map(len, encoded)), call)
                    for b64_json in encoded:
                        yield _event_bytes(bodies.completed_body(event, record, b64_json))
                elif preview and _is_due(record, sent, partial_images):
                    yield _event_bytes(bodies.partial_body(event, preview, sent))
                    sent += 1
            except (ApiError, StorageError) as error:
                told = error if isinstance(error, ApiError) else Unavailable(str(error))
                yield event_bytes("error", {"error": told.body()["error"]})


def _event_bytes(body: dict[str, Any]) -> bytes:
    return event_bytes(body["type"], body)


def _is_due(record: Record, sent: int, partial_images: int) -> bool:
    """True when the next partial image is due: `partial_images` are spread evenly over the steps."""
    due_at = (sent + 1) / (partial_images + 1)
    return sent < partial_images and progress(record) >= due_at


def _encoded(record: Record, storage: Storage) -> list[str]:
    """Each picture in base64. Raises NotMade for one that is gone, and StorageError."""
    return [base64.b64encode(data).decode() for data in read_pictures(record, storage)]
