"""A request's record and its moves. In Redis, a bell's job is named `worker.queue.run_next`."""


def run_next() -> None:
    """Answers a bell as `worker.queue.doorbell.run_next` does, under the name that stands in Redis."""
    from worker.queue import doorbell

    doorbell.run_next()
