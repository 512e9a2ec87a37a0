"""Ends tasks for sure: one `cancel()` may be lost."""

import asyncio
from typing import Any

AGAIN_SECONDS = 0.2


async def cancelled(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel the tasks, again and again, until each has ended; what they raised is left in them.

    `asyncio.wait_for` before Python 3.12, by which redis-py sends every command, swallows a cancellation that
    comes just when what it waits for is done: the task goes on, and who waits for its end waits for ever.
    """
    begun = [task for task in tasks if task is not None]
    # One that has ended may belong to a loop that is closed, and cannot be waited for any more.
    while pending := [task for task in begun if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_SECONDS)
    for task in begun:
        if not task.cancelled():
            task.exception()
