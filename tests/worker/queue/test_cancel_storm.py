"""Cancels that arrive at any moment of a request's life."""

import random

import anyio
import pytest

from tests.worker.runtime.crew import Crew

pytestmark = pytest.mark.anyio

REQUESTS = 40


async def test_request_ends_cancelled_or_finished_and_shows_nothing_after_cancelled(crew: Crew) -> None:
    for kind in ("io", "io", "gpu", "gpu"):
        crew.start(kind, TEST_STEP_SECONDS="0.01")
    await crew.workers("ready", 4)
    chance = random.Random(5)
    outcomes: dict[str, str] = {}

    async def cancel_later(request_id: str, seconds: float) -> None:
        await anyio.sleep(seconds)
        cancellation = await crew.requests.cancel(request_id, force=True)
        assert cancellation is not None
        outcomes[request_id] = cancellation.outcome
        if cancellation.outcome == "cancelled":
            record = await crew.get(request_id)
            assert (record.state, record.output) == ("cancelled", None)

    async with anyio.create_task_group() as tasks:
        for number in range(REQUESTS):
            await crew.submit(f"r{number}", seed=number)
            tasks.start_soon(cancel_later, f"r{number}", chance.uniform(0, 5))
    records = [await crew.until(f"r{number}") for number in range(REQUESTS)]
    for record in records:
        if outcomes[record.id] == "cancelled":
            assert (record.state, record.output) == ("cancelled", None)
        else:
            assert record.state == "succeeded"
    assert set(outcomes.values()) == {"cancelled", "not_cancellable"}, "the moments were spread too little"
    await crew.submit("last")
    await crew.until("last")
    assert len(crew.outputs()) == 1 + list(outcomes.values()).count("not_cancellable")
