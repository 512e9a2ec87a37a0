"""Bells: what RQ is given, and what it keeps."""

import json
import zlib
from pathlib import Path

import anyio
import pytest
import redis
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from tests.worker.runtime.crew import Crew
from worker.queue.doorbell import BELL_LISTS, Doorbells

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("queue", "bell_list"), list(BELL_LISTS.items()))
async def test_bell_is_a_constant_name_in_json_on_its_queues_list(
    redis_url: str, client: redis.Redis, queue: str, bell_list: str
) -> None:
    bells = Doorbells(redis_url)
    bells.ring(queue, 2)  # type: ignore[arg-type]
    bells.close()
    ids = client.lrange(bell_list, 0, -1)
    assert isinstance(ids, list)
    assert len(ids) == 2
    with redis.Redis.from_url(redis_url) as raw:
        data = raw.hget(f"rq:job:{ids[0]}", "data")
    assert isinstance(data, bytes)
    assert json.loads(zlib.decompress(data)) == ["worker.queue.run_next", None, [], {}]


async def test_answered_bells_leave_nothing_behind(crew: Crew, client: redis.Redis) -> None:
    crew.start("io")
    crew.start("gpu")
    for number in range(5):
        await crew.submit(f"r{number}")
    for number in range(5):
        assert (await crew.until(f"r{number}")).state == "succeeded"
    with anyio.fail_after(10):
        while list(client.scan_iter("rq:job:*")) or list(client.scan_iter("rq:results:*")):  # noqa: ASYNC110
            await anyio.sleep(0.05)
    assert client.llen(BELL_LISTS["io"]) == client.llen(BELL_LISTS["gpu"]) == 0


async def test_lost_bells_are_rung_again(crew: Crew, client: redis.Redis) -> None:
    crew.start("io")
    crew.start("gpu")
    await crew.workers("ready", 2)
    # As a worker that died between hearing a bell and answering it, or a Redis that lost its last second.
    crew.requests._bells.ring = lambda *_: None  # type: ignore[method-assign]
    await crew.submit("a")
    assert client.llen(BELL_LISTS["io"]) == 0
    assert (await crew.until("a")).state == "succeeded"


async def test_bell_that_names_another_function_only_rings(
    crew: Crew, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    crew.requests._bells.ring = lambda *_: None  # type: ignore[method-assign]
    await crew.submit("a")
    hooks = [tmp_path / name for name in ("called", "succeeded", "failed")]
    with redis.Redis.from_url(redis_url) as raw:
        bell = Queue("zturbo-io", connection=raw, serializer=JSONSerializer).enqueue(
            "os.mkdir",
            str(hooks[0]),
            on_success=Callback("tests.worker.queue.test_doorbell.leave_a_trace"),
            on_failure=Callback("tests.worker.queue.test_doorbell.leave_a_trace"),
            meta={"trace": str(hooks[1])},
            result_ttl=0,
        )
    crew.start("io")
    with anyio.fail_after(10):
        while (await crew.get("a")).stage == "prepare" or client.exists(bell.key):  # noqa: ASYNC110
            await anyio.sleep(0.05)
    assert not any(hook.exists() for hook in hooks)


def leave_a_trace(job: Job, *_: object) -> None:
    Path(job.meta["trace"]).touch()
