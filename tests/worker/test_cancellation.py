"""Tasks end though one cancellation is lost."""

import asyncio

import pytest

from worker.cancellation import cancelled

pytestmark = pytest.mark.anyio


async def test_task_whose_first_cancellation_is_lost_is_ended() -> None:
    lost = asyncio.Event()

    async def swallow_one() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost.set()
        await asyncio.sleep(60)

    async def fail() -> None:
        raise RuntimeError("left in the task")

    tasks = [asyncio.create_task(each()) for each in (swallow_one, fail)]
    await asyncio.sleep(0)
    await asyncio.wait_for(cancelled(None, *tasks), timeout=30)
    assert lost.is_set()
    assert all(task.done() for task in tasks)


async def test_task_that_ended_with_a_loop_of_its_own_is_left_alone() -> None:
    """As that of a server on another thread, which is closed there and once more by its test."""

    def run_elsewhere() -> "asyncio.Task[None]":
        async def begin() -> "asyncio.Task[None]":
            task = asyncio.create_task(asyncio.sleep(0))
            await task
            return task

        return asyncio.run(begin())

    await asyncio.wait_for(cancelled(await asyncio.to_thread(run_elsewhere)), timeout=30)
