"""A reply of Redis that never arrives: the command was done, its sender repeats it, and nothing doubles."""

import threading
from collections.abc import Iterator

import anyio
import pytest
import redis

from tests.support.reply_dropper import ReplyDropper
from tests.worker.runtime.crew import MODEL
from tests.worker.runtime.solo import BODY, GreyEngine, files, never
from worker.config import WorkerSettings
from worker.queue.connection import connect
from worker.queue.doorbell import Doorbells
from worker.queue.keys import Queue
from worker.queue.requests import CallersKey, RequestStore
from worker.queue.work_queue import WorkQueue
from worker.runtime.consumer import Consumer
from worker.runtime.quarantine import CrashLoop
from worker.stages.task import Tools
from worker.storage.backend import open_objects

pytestmark = pytest.mark.anyio


@pytest.fixture
def proxy(redis_url: str) -> Iterator[ReplyDropper]:
    dropper = ReplyDropper(redis_url)
    yield dropper
    dropper.close()


@pytest.fixture
def settings(settings: WorkerSettings, proxy: ReplyDropper) -> WorkerSettings:
    return settings.model_copy(update={"redis_url": proxy.url, "model": "demo"})


def work(settings: WorkerSettings, *queues: Queue) -> None:
    url = settings.redis_url or ""
    for queue in queues:
        bells, objects = Doorbells(url), open_objects(settings)
        with connect(url) as one, connect(url) as other:
            work_queue, beats = WorkQueue(one, settings), WorkQueue(other, settings)
            tools, crash_loop = Tools(settings, objects), CrashLoop(other, "none")
            consumer = Consumer(queue, "w", work_queue, beats, bells, tools, GreyEngine(), crash_loop, never)
            consumer.drain(threading.Event())
            # A lease is left without waiting for the answer to its last beat; its client is closed here.
            for thread in threading.enumerate():
                if thread.name == "lease":
                    thread.join()
        bells.close()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("script", ["submit", "next", "advance", "close"])
async def test_request_is_recorded_once_and_has_one_result(
    settings: WorkerSettings, proxy: ReplyDropper, client: redis.Redis, script: str, times: int
) -> None:
    requests = RequestStore.connect(settings)
    proxy.drop(script, times)
    assert await requests.submit("a", MODEL, BODY, "local", []) == ("a", 0)
    await anyio.to_thread.run_sync(work, settings, "io", "gpu", "io")
    assert proxy.dropped == times
    record = await requests.get("a")
    await requests.close()
    assert record is not None
    assert (record.state, record.attempt) == ("succeeded", 1)
    assert len(list(client.scan_iter("zturbo:req:*"))) == 1
    assert len(files(settings)) == 1
    assert client.zcard("zturbo:leases") == 0


async def test_submit_with_a_callers_key_stays_one_when_its_answer_is_lost(
    settings: WorkerSettings, proxy: ReplyDropper
) -> None:
    requests, key = RequestStore.connect(settings), CallersKey("order-7", "digest")
    proxy.drop("submit", 1)
    assert await requests.submit("a", MODEL, BODY, "local", [], key=key) == ("a", 0)
    assert await requests.submit("b", MODEL, BODY, "local", [], key=key) == ("a", 0)
    await requests.close()


async def test_cancel_whose_answer_was_lost_is_answered_the_same(
    settings: WorkerSettings, proxy: ReplyDropper
) -> None:
    requests = RequestStore.connect(settings)
    await requests.submit("a", MODEL, BODY, "local", [])
    proxy.drop("cancel")
    assert await requests.cancel("a") == ("cancelled", "cancelled")
    assert proxy.dropped == 1
    await requests.close()
