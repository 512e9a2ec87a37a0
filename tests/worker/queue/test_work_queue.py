"""A request's record from submit to its end, by the real scripts; most tests also send each of them twice."""

import time
from dataclasses import replace
from typing import Any

import anyio
import pytest
import redis

from worker.config import WorkerSettings
from worker.errors import LeaseLost
from worker.queue.doorbell import Doorbells
from worker.queue.record import Record
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue

Sides = tuple[RequestStore, WorkQueue]

pytestmark = pytest.mark.anyio

MODEL = "tongyi-mai/z-image/turbo/controlnet/lora"


async def submit(requests: RequestStore, request_id: str, owner: str = "local") -> int:
    taken = await requests.submit(request_id, MODEL, {"prompt": "a fox"}, owner, ["stray: ignored"])
    return taken.position


async def read(requests: RequestStore, request_id: str) -> Record:
    record = await requests.get(request_id)
    assert record is not None
    return record


def take(work_queue: WorkQueue, queue: str, token: str) -> Record:
    record = work_queue.next(queue, token, "worker-1")  # type: ignore[arg-type]
    assert record is not None
    return record


async def to_gpu(sides: Sides, request_id: str) -> None:
    requests, work_queue = sides
    await submit(requests, request_id)
    record = take(work_queue, "io", f"prepare-{request_id}")
    work_queue.advance(record.id, f"prepare-{request_id}", "generate", {"job": 1})


async def test_submitted_request_waits_with_everything_it_was_given(sides: Sides) -> None:
    requests, _ = sides
    assert await submit(requests, "a", owner="ann") == 0
    record = await read(requests, "a")
    assert record == replace(
        record, id="a", model_id=MODEL, owner="ann", input={"prompt": "a fox"}, warnings=("stray: ignored",),
        state="in_queue", stage="prepare", attempt=0, step=0, position=0, output=None, error=None,
    )  # fmt: skip
    assert abs(record.created_at - time.time()) < 60


async def test_same_id_again_changes_nothing(sides: Sides) -> None:
    requests, _ = sides
    await submit(requests, "a")
    await submit(requests, "b")
    before = await read(requests, "b")
    assert await submit(requests, "b") == 1
    assert await read(requests, "b") == before
    assert (await requests.stats()).in_line == 2


async def test_unknown_request_is_none(sides: Sides) -> None:
    requests, work_queue = sides
    assert await requests.get("nobody") is None
    assert await requests.cancel("nobody") is None
    assert work_queue.get("nobody") is None


async def test_id_that_could_name_a_path_is_refused(requests: RequestStore) -> None:
    with pytest.raises(ValueError, match="request id"):
        await submit(requests, "../etc")


async def test_a_request_goes_through_its_stages(sides: Sides) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    record = take(work_queue, "io", "t1")
    assert (record.stage, record.attempt, record.state) == ("prepare", 1, "in_queue")
    assert (await read(requests, "a")).state == "in_queue"
    work_queue.advance("a", "t1", "generate", {"seed": 7})
    record = take(work_queue, "gpu", "t2")
    assert (record.stage, record.attempt, record.prepared) == ("generate", 1, {"seed": 7})
    running = await read(requests, "a")
    assert running.state == "in_progress"
    assert running.position is None
    assert running.started_at is not None

    assert work_queue.beat("a", "t2", 3, 8) == "held"
    running = await read(requests, "a")
    assert (running.step, running.total_steps) == (3, 8)
    work_queue.advance("a", "t2", "finish", {"image": "x.npy"})
    assert (await read(requests, "a")).state == "in_progress"
    record = take(work_queue, "io", "t3")
    assert (record.stage, record.generated) == ("finish", {"image": "x.npy"})
    assert work_queue.beat("a", "t3", 0, 0) == "held"
    assert (await read(requests, "a")).step == 8
    work_queue.finish("a", "t3", {"image": {"name": "x.png"}})
    done = await read(requests, "a")
    assert (done.state, done.output, done.error) == ("succeeded", {"image": {"name": "x.png"}}, None)
    assert done.finished_at is not None
    stats = await requests.stats()
    assert (stats.waiting, stats.in_line, stats.running) == ({"io": 0, "gpu": 0}, 0, 0)
    assert stats.generate_seconds is not None


async def test_failed_request_tells_why(sides: Sides) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    take(work_queue, "io", "t1")
    work_queue.fail("a", "t1", "fetch_failed", "image_url: the host does not answer.")
    record = await read(requests, "a")
    assert record.state == "failed"
    assert record.error == {"type": "fetch_failed", "message": "image_url: the host does not answer."}
    assert (await requests.stats()).in_line == 0


async def test_same_token_gets_the_same_request_and_one_attempt(sides: Sides) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    await submit(requests, "b")
    assert take(work_queue, "io", "t1").id == "a"
    again = take(work_queue, "io", "t1")
    assert (again.id, again.attempt) == ("a", 1)
    assert take(work_queue, "io", "t2").id == "b"
    assert work_queue.next("io", "t3", "worker-1") is None


async def test_token_that_lost_its_request_gets_nothing(sides: Sides) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    await submit(requests, "b")
    take(work_queue, "io", "t1")
    await requests.cancel("a")
    assert work_queue.next("io", "t1", "worker-1") is None
    assert take(work_queue, "io", "t2").id == "b"


async def test_position_counts_requests_not_yet_on_a_gpu(sides: Sides) -> None:
    requests, work_queue = sides
    for request_id in "abc":
        await to_gpu(sides, request_id)
    assert [(await read(requests, request_id)).position for request_id in "abc"] == [0, 1, 2]
    take(work_queue, "gpu", "t")
    assert [(await read(requests, request_id)).position for request_id in "abc"] == [None, 0, 1]


async def test_gpu_takes_requests_in_the_order_of_submission(sides: Sides) -> None:
    requests, work_queue = sides
    for request_id in "ab":
        await submit(requests, request_id)
    take(work_queue, "io", "ta")
    take(work_queue, "io", "tb")
    work_queue.advance("b", "tb", "generate", {})
    work_queue.advance("a", "ta", "generate", {})
    assert take(work_queue, "gpu", "t1").id == "a"


async def test_finishing_comes_before_preparing(sides: Sides) -> None:
    requests, work_queue = sides
    await to_gpu(sides, "b")
    await submit(requests, "a")
    take(work_queue, "gpu", "t1")
    work_queue.advance("b", "t1", "finish", {})
    assert take(work_queue, "io", "t2").stage == "finish"
    assert take(work_queue, "io", "t3").stage == "prepare"


@pytest.mark.parametrize(
    ("move", "args"),
    [
        ("advance", ("generate", {"from": "the old worker"})),
        ("finish", ({"from": "the old worker"},)),
        ("fail", ("internal_error", "the old worker's")),
    ],
)
async def test_write_with_a_lost_token_is_refused(sides: Sides, move: str, args: tuple[Any, ...]) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    take(work_queue, "io", "old")
    work_queue.release("a", "old")
    take(work_queue, "io", "new")
    with pytest.raises(LeaseLost):
        getattr(work_queue, move)("a", "old", *args)
    assert work_queue.beat("a", "old") == "fenced"
    assert work_queue.beat("a", "new") == "held"
    assert (await read(requests, "a")).state == "in_queue"


async def test_released_request_is_first_again_with_the_same_attempt(sides: Sides) -> None:
    requests, work_queue = sides
    for request_id in "ab":
        await to_gpu(sides, request_id)
    take(work_queue, "gpu", "t1")
    work_queue.beat("a", "t1", 2, 8, seconds_left=60)
    assert (await read(requests, "a")).due_at is not None
    work_queue.release("a", "t1")
    record = await read(requests, "a")
    assert (record.state, record.position, record.step) == ("in_queue", 0, 0)
    assert (record.started_at, record.due_at) == (None, None)
    again = take(work_queue, "gpu", "t2")
    assert (again.id, again.attempt) == ("a", 1)


@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "release"])
async def test_preview_goes_when_the_work_it_shows_is_over(sides: Sides, end: str) -> None:
    requests, work_queue = sides
    await to_gpu(sides, "a")
    take(work_queue, "gpu", "t1")
    work_queue.beat("a", "t1", 1, 8, b"jpeg")
    assert await requests.preview("a") == "anBlZw=="
    match end:
        case "finish":
            work_queue.finish("a", "t1", {})
        case "fail":
            work_queue.fail("a", "t1", "internal_error", "It broke.")
        case "cancel":
            await requests.cancel("a", force=True)
        case "release":
            work_queue.release("a", "t1")
    assert await requests.preview("a") is None


@pytest.mark.parametrize("stage", ["waiting", "preparing", "prepared"])
async def test_request_in_the_queue_is_cancelled_at_once(sides: Sides, stage: str) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    if stage != "waiting":
        take(work_queue, "io", "t1")
    if stage == "prepared":
        work_queue.advance("a", "t1", "generate", {})
    assert await requests.cancel("a") == ("cancelled", "cancelled")
    assert (await read(requests, "a")).state == "cancelled"
    assert work_queue.next("io", "t2", "w") is None
    assert work_queue.next("gpu", "t3", "w") is None
    if stage == "preparing":
        assert work_queue.beat("a", "t1") == "cancelled"
        with pytest.raises(LeaseLost):
            work_queue.advance("a", "t1", "generate", {})
    assert (await requests.stats()).in_line == 0
    assert await requests.cancel("a") == ("cancelled", "cancelled")


async def test_running_request_is_cancelled_only_by_force(sides: Sides) -> None:
    requests, work_queue = sides
    await to_gpu(sides, "a")
    take(work_queue, "gpu", "t1")
    assert await requests.cancel("a") == ("not_cancellable", "in_progress")
    assert work_queue.beat("a", "t1") == "held"
    assert await requests.cancel("a", force=True) == ("cancelled", "cancelled")
    assert work_queue.beat("a", "t1") == "cancelled"
    with pytest.raises(LeaseLost):
        work_queue.advance("a", "t1", "finish", {})


async def test_finished_request_cannot_be_cancelled(sides: Sides) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    take(work_queue, "io", "t1")
    work_queue.finish("a", "t1", {})
    assert await requests.cancel("a", force=True) == ("not_cancellable", "succeeded")


async def test_only_a_finished_request_can_be_deleted(sides: Sides, client: redis.Redis) -> None:
    requests, _ = sides
    await submit(requests, "a", owner="ann")
    assert await requests.delete("a") is False
    await requests.cancel("a")
    assert await requests.delete("a") is True
    assert await requests.get("a") is None
    assert (await requests.list_owned("ann")).records == []
    assert client.exists("zturbo:owner:ann", "zturbo:done") == 0


async def test_owner_lists_own_requests_newest_first_in_pages(sides: Sides) -> None:
    requests, _ = sides
    for request_id in "abcde":
        await submit(requests, request_id, owner="ann")
        await submit(requests, f"other-{request_id}", owner="bob")
    await requests.cancel("c")
    first = await requests.list_owned("ann", limit=3)
    assert [record.id for record in first.records] == ["e", "d", "c"]
    second = await requests.list_owned("ann", limit=3, cursor=first.cursor)
    assert ([record.id for record in second.records], second.cursor) == (["b", "a"], None)
    cancelled = await requests.list_owned("ann", state="cancelled")
    assert [record.id for record in cancelled.records] == ["c"]


async def test_time_at_each_stage_is_added_up_over_all_attempts(sides: Sides, client: redis.Redis) -> None:
    requests, work_queue = sides
    await to_gpu(sides, "a")
    for token, seconds in (("t1", 2), ("t2", 3)):
        taken = take(work_queue, "gpu", token)
        client.hincrby("zturbo:req:a", "taken_at", -1000 * seconds)
        assert (taken.gpu_seconds, set(taken.spent)) == (
            None,
            {"prepare"} if token == "t1" else {"prepare", "generate"},
        )
        if token == "t1":
            work_queue.release("a", token)
    await requests.cancel("a", force=True)
    record = await read(requests, "a")
    assert 5 <= record.spent["generate"] < 60
    assert record.gpu_seconds == record.spent["generate"]
    assert record.timings == record.spent


async def test_request_that_never_reached_a_gpu_spent_nothing_there(sides: Sides) -> None:
    requests, _ = sides
    await submit(requests, "a")
    await requests.cancel("a")
    record = await read(requests, "a")
    assert (record.gpu_seconds, record.timings) == (0.0, {})


async def test_expired_records_are_forgotten(sides: Sides, settings: WorkerSettings) -> None:
    requests, work_queue = sides
    await submit(requests, "a")
    await submit(requests, "b")
    await requests.cancel("a")
    assert work_queue.forget_expired(10) == []
    work_queue._settings = settings.model_copy(update={"retention_days": 0.001 / 86_400})
    await anyio.sleep(0.01)
    assert [record.id for record in work_queue.forget_expired(10)] == ["a"]
    assert work_queue.forget_expired(10) == []
    assert await requests.get("a") is None
    assert (await read(requests, "b")).state == "in_queue"


async def test_bell_is_rung_only_when_one_is_missing(sides: Sides, client: redis.Redis) -> None:
    requests, _ = sides
    for request_id in "abc":
        await submit(requests, request_id)
    assert client.llen("rq:queue:zturbo-io") == 1, "one worker at most is there to hear it"
    registry = Registry(client, hold_seconds=10)
    for worker in ("w1", "w2"):
        registry.say(WorkerInfo(id=worker, kind="io", state="ready"))
    await submit(requests, "d")
    await submit(requests, "e")
    assert client.llen("rq:queue:zturbo-io") == 2


async def test_submit_stands_when_the_bell_cannot_be_rung(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, _ = sides

    def broken(*_: object) -> None:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(Doorbells, "ring", broken)
    assert await submit(requests, "a") == 0
    assert (await read(requests, "a")).state == "in_queue"


async def test_what_is_counted_is_counted_once_though_a_script_is_sent_twice(
    sides: Sides, client: redis.Redis
) -> None:
    requests, work_queue = sides
    await to_gpu(sides, "a")
    take(work_queue, "gpu", "t1")
    work_queue.release("a", "t1")
    take(work_queue, "gpu", "t2")
    work_queue.advance("a", "t2", "finish", {})
    take(work_queue, "io", "t3")
    work_queue.finish("a", "t3", {"image": {}})
    await submit(requests, "b")
    await requests.cancel("b")
    await requests.delivered("a", 1, {"at": 0, "status": 204}, None)
    counted = {
        name: int(count)
        for name, count in client.hgetall("zturbo:metrics").items()  # type: ignore[union-attr]
        if "seconds" not in name
    }
    assert counted == {
        "submits|queued": 2, "requests|succeeded|": 1, "requests|cancelled|": 1,
        "attempts|generate|released": 1, "webhooks|2xx": 1,
    }  # fmt: skip
    pictures = [name for name in client.hkeys("zturbo:metrics") if name.startswith("generate_seconds")]  # type: ignore[union-attr]
    assert len(pictures) == 2
