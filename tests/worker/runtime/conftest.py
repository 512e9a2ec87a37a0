"""One worker after the other in the test's own process, where it can reach between a stage and its record."""

import json
from collections.abc import Callable
from threading import Event
from typing import NoReturn

import pytest
import redis

from tests.worker.runtime.crew import MODEL
from tests.worker.runtime.solo import BODY, GreyEngine, never
from worker.config import WorkerSettings
from worker.queue import scripts as call
from worker.queue.connection import connect
from worker.queue.doorbell import Doorbells
from worker.queue.keys import Queue
from worker.queue.record import Record
from worker.queue.scripts import Scripts
from worker.queue.work_queue import WorkQueue
from worker.runtime.consumer import Consumer
from worker.runtime.quarantine import CrashLoop
from worker.stages.task import Engine, Tools
from worker.storage.objects import Objects


@pytest.fixture
def settings(settings: WorkerSettings) -> WorkerSettings:
    return settings.model_copy(update={"model": "demo"})


@pytest.fixture
def scripts(client: redis.Redis) -> Scripts:
    return Scripts(client)


@pytest.fixture
def submit(scripts: Scripts) -> Callable[[str], None]:
    def submit(request_id: str) -> None:
        fields = {"model_id": MODEL, "input": json.dumps(BODY), "warnings": "[]"}
        scripts.run(call.submit(id=request_id, owner="local", most=10, fields=fields))

    return submit


@pytest.fixture
def live(
    work_queue: WorkQueue, submit: Callable[[str], None], settings: WorkerSettings
) -> Callable[..., Record]:
    """Submits, and lets one worker after the other work off its queue; the record at the end."""
    bells = Doorbells(settings.redis_url or "")
    submit("a")

    def work(
        *queues: Queue,
        objects: Objects,
        engine: Engine | None = None,
        quit: Callable[[int, str], NoReturn] = never,
    ) -> Record:
        for queue in queues:
            own = connect(settings.redis_url or "")
            consumer = Consumer(
                queue,
                "w",
                work_queue,
                WorkQueue(own, settings),
                bells,
                Tools(settings, objects),
                engine or GreyEngine(),
                CrashLoop(own, "none"),
                quit,
            )
            consumer.drain(Event())
            assert consumer.holdings == {}
        record = work_queue.get("a")
        assert record is not None, "there is no record"
        return record

    return work
