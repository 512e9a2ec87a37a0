"""The route that streams a request's states as server-sent events, so that nobody asks again and again."""

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.answers import event_body, result_body
from app.deps import LinksDep, OwnRecord, RequestsDep
from worker.queue.follow import follow
from worker.queue.record import FINAL_STATES

router = APIRouter(prefix="/v1/requests", tags=["requests"])


@router.get("/{request_id}/events", response_class=EventSourceResponse)
async def get_events(
    record: OwnRecord, requests: RequestsDep, links: LinksDep, preview: bool = True
) -> AsyncIterator[ServerSentEvent]:
    """Events `status`, each complete, the present one first; at the end one event `result`, as that route."""
    async for moment in follow(requests, record.id, previews=preview):
        yield ServerSentEvent(event="status", data=event_body(moment, links).wire())
        if moment.record.state in FINAL_STATES:
            yield ServerSentEvent(
                event="result", data=result_body(moment.record, links, include_cost=False).wire()
            )
