"""The sender of webhooks by itself: how many it has in hand, and how it stops."""

import socket
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from app.config import Settings
from app.webhooks import Webhooks
from tests.support.http_api import WorkerHands
from tests.support.processes import wait_for
from worker.queue.requests import RequestStore
from worker.secret import Secret
from worker.webhooks import POST_SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A receiver that answers nobody, for whoever accepts its connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(POST_SECONDS / 2)
        yield server


@pytest.fixture
async def webhooks(
    settings: Settings, requests: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Webhooks]:
    """It sends one at a time."""
    monkeypatch.setattr("app.webhooks.AT_ONCE", 1)
    monkeypatch.setattr("app.webhooks.LOOK_SECONDS", 0.01)
    allowing = settings.model_copy(update={"allow_hosts": "127.0.0.1"})
    webhooks = Webhooks(requests, allowing, Secret(settings.data_dir))
    yield webhooks
    await webhooks.stop()


async def make_due(
    requests: RequestStore, hands: WorkerHands, receiver: socket.socket, request_id: str
) -> None:
    webhook = {"url": f"http://127.0.0.1:{receiver.getsockname()[1]}/", "base": "http://x", "dialect": ""}
    await requests.submit(request_id, "model", {}, "local", [], webhook)
    hands.fail("fetch_failed", "image_url: nobody is there.")


async def test_no_more_are_taken_than_are_sent_at_once_and_the_next_when_one_is_over(
    webhooks: Webhooks,
    requests: RequestStore,
    hands: WorkerHands,
    silent: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int] = []
    due_webhooks = requests.due_webhooks

    async def noted(limit: int, lease_seconds: float) -> list[str]:
        limits.append(limit)
        return await due_webhooks(limit, lease_seconds)

    monkeypatch.setattr(requests, "due_webhooks", noted)
    for request_id in "ab":
        await make_due(requests, hands, silent, request_id)
    webhooks.start()
    for number in (1, 2):
        with (await anyio.to_thread.run_sync(silent.accept))[0]:
            limits.clear()
            await anyio.to_thread.run_sync(wait_for, lambda: len(limits) > 2)
            assert set(limits) == {0}, f"number {number} is being sent"


async def test_stop_waits_for_no_receiver(
    webhooks: Webhooks, requests: RequestStore, hands: WorkerHands, silent: socket.socket
) -> None:
    await make_due(requests, hands, silent, "a")
    webhooks.start()
    with (await anyio.to_thread.run_sync(silent.accept))[0], anyio.fail_after(POST_SECONDS / 2):
        await webhooks.stop()


async def test_request_that_is_deleted_before_its_webhook_is_sent_is_passed_over(
    webhooks: Webhooks, requests: RequestStore, hands: WorkerHands, silent: socket.socket
) -> None:
    await make_due(requests, hands, silent, "a")
    await requests.due_webhooks(1, lease_seconds=60)
    await requests.delete("a")
    await webhooks._send("a")
