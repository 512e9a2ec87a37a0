"""Preparing may wait long for a slow host: it takes neither all io workers nor another owner's share."""

import pytest
import redis

from worker.queue.record import Record
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue

pytestmark = pytest.mark.anyio


@pytest.fixture
def io_workers(client: redis.Redis, request: pytest.FixtureRequest) -> None:
    for number in range(request.param):
        Registry(client, 60).say(WorkerInfo(f"io-{number}", "io", "ready"))


def take(work_queue: WorkQueue, token: str) -> Record | None:
    return work_queue.next("io", token, "io-0")


async def submit(requests: RequestStore, *request_ids: str, owner: str) -> None:
    for request_id in request_ids:
        await requests.submit(request_id, "model", {}, owner, [])


@pytest.mark.parametrize("io_workers", [3], indirect=True)
@pytest.mark.usefixtures("io_workers")
async def test_owner_of_slow_fetches_leaves_a_worker_to_others_and_one_to_finish(
    requests: RequestStore, work_queue: WorkQueue
) -> None:
    await submit(requests, "a", "b", "c", owner="ann")
    slow = take(work_queue, "t1")
    assert slow is not None
    assert (slow.id, take(work_queue, "t2")) == ("a", None)
    await submit(requests, "d", owner="bob")
    other = take(work_queue, "t3")
    assert other is not None
    assert other.id == "d"
    await submit(requests, "e", owner="cat")
    assert take(work_queue, "t4") is None
    # What comes back from a GPU is finished all the same.
    work_queue.advance("d", "t3", "generate", {})
    assert work_queue.next("gpu", "t5", "gpu-0") is not None
    work_queue.advance("d", "t5", "finish", {})
    finishing = take(work_queue, "t6")
    assert finishing is not None
    assert finishing.id == "d"
    # And whoever has nothing in hand goes before who has.
    following = take(work_queue, "t7")
    assert following is not None
    assert following.id == "e"


@pytest.mark.parametrize("io_workers", [1], indirect=True)
@pytest.mark.usefixtures("io_workers")
async def test_single_worker_takes_what_comes(requests: RequestStore, work_queue: WorkQueue) -> None:
    await submit(requests, "a", "b", owner="ann")
    assert take(work_queue, "t1") is not None
    assert take(work_queue, "t2") is not None


@pytest.mark.parametrize("io_workers", [6], indirect=True)
@pytest.mark.usefixtures("io_workers")
async def test_with_many_workers_an_owner_has_all_but_two(
    requests: RequestStore, work_queue: WorkQueue
) -> None:
    await submit(requests, *"abcdefgh", owner="ann")
    assert [take(work_queue, f"t{number}") is not None for number in range(6)] == [True] * 4 + [False] * 2
