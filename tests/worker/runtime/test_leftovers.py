"""What is left on disk of a request whose worker lost it, died, or came to the end of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.worker.runtime.solo import files
from worker.config import WorkerSettings
from worker.errors import StorageError
from worker.queue import scripts as call
from worker.queue.keys import Queue
from worker.queue.record import Record
from worker.queue.scripts import Scripts
from worker.queue.work_queue import WorkQueue
from worker.runtime.sweeper import Sweeper
from worker.storage.folder import FolderObjects


class InterruptedObjects(FolderObjects):
    """Something happens right after a picture is written, before its record says so."""

    def __init__(self, root: Path, then: Callable[[], object]) -> None:
        super().__init__(root)
        self._then = then

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if key.startswith("outputs/"):
            self._then()


class Died(BaseException):
    """Stands for kill -9."""


def test_request_that_ended_leaves_nothing_that_it_needed_on_its_way(
    live: Callable[..., Record], settings: WorkerSettings
) -> None:
    record = live("io", "gpu", "io", objects=FolderObjects(settings.data_dir))
    assert (record.state, len(files(settings))) == ("succeeded", 1)
    assert not (settings.data_dir / "work" / "a").exists()


def test_request_that_failed_leaves_nothing(live: Callable[..., Record], settings: WorkerSettings) -> None:
    def break_down() -> None:
        raise StorageError("The disk is full.")

    record = live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, break_down))
    assert record.state == "failed"
    assert not (settings.data_dir / "work" / "a").exists()


def test_finish_that_is_done_twice_leaves_one_file(
    live: Callable[..., Record], work_queue: WorkQueue, scripts: Scripts, settings: WorkerSettings
) -> None:
    def die() -> None:
        raise Died

    with pytest.raises(Died):
        live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, die))
    (left,) = files(settings)
    scripts.run(call.declare_dead(queue="io", id_prefix="w"))
    work_queue.reap(0.001)
    record = live("io", objects=FolderObjects(settings.data_dir))
    assert (record.state, files(settings)) == ("succeeded", [left])
    assert record.output is not None
    assert record.output["image"]["size"] == left.stat().st_size


def test_request_cancelled_while_its_picture_is_written_leaves_no_file(
    live: Callable[..., Record], scripts: Scripts, settings: WorkerSettings
) -> None:
    objects = InterruptedObjects(settings.data_dir, lambda: scripts.run(call.cancel(id="a", force=True)))
    record = live("io", "gpu", "io", objects=objects)
    assert (record.state, record.output, files(settings)) == ("cancelled", None, [])
    assert not (settings.data_dir / "work" / "a").exists()


@pytest.mark.parametrize("queues", [("io",), ("io", "gpu")])
def test_pixels_that_a_stage_writes_after_the_cancel_go_with_it(
    live: Callable[..., Record], scripts: Scripts, settings: WorkerSettings, queues: tuple[Queue, ...]
) -> None:
    class CancelledObjects(FolderObjects):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            scripts.run(call.cancel(id="a", force=True))

    live(*queues[:-1], objects=FolderObjects(settings.data_dir))
    record = live(queues[-1], objects=CancelledObjects(settings.data_dir))
    assert record.state == "cancelled"
    assert not (settings.data_dir / "work" / "a").exists()


@pytest.mark.parametrize("breaks", [False, True])
def test_worker_that_lost_its_request_deletes_nothing_of_it(
    live: Callable[..., Record],
    work_queue: WorkQueue,
    scripts: Scripts,
    settings: WorkerSettings,
    breaks: bool,
) -> None:
    def lose() -> None:
        scripts.run(call.declare_dead(queue="io", id_prefix="w"))
        work_queue.reap(0.001)
        assert work_queue.next("io", "successor", "w2") is not None
        if breaks:
            raise StorageError("The disk is full.")

    record = live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, lose))
    assert (record.state, record.attempt) == ("in_progress", 2)
    assert len(files(settings)) == 1
    assert len(list((settings.data_dir / "work" / "a").iterdir())) == 2


@pytest.mark.parametrize(
    ("end", "left"), [("cancelled", 0), ("failed", 0), ("succeeded", 1), ("in_progress", 1)]
)
def test_files_of_a_request_without_a_result_are_swept_when_its_worker_died(
    live: Callable[..., Record],
    work_queue: WorkQueue,
    scripts: Scripts,
    client: redis.Redis,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    left: int,
) -> None:
    def die() -> None:
        match end:
            case "cancelled":
                scripts.run(call.cancel(id="a", force=True))
            case "failed" | "succeeded":
                token = client.hget("zturbo:req:a", "token")
                fields = {"error": '{"type": "worker_crashed", "message": ""}'}
                scripts.run(call.close(id="a", token=token, state=end, fields=fields))
        raise Died

    objects = InterruptedObjects(settings.data_dir, die)
    with pytest.raises(Died):
        live("io", "gpu", "io", objects=objects)
    record = work_queue.get("a")
    assert record is not None
    assert record.state == end
    assert (len(files(settings)), (settings.data_dir / "work" / "a").exists()) == (1, True)
    monkeypatch.setattr("worker.storage.workspace.YOUNG_SECONDS", -1)
    Sweeper(work_queue, objects, settings)._sweep()
    assert len(files(settings)) == left
    assert (settings.data_dir / "work" / "a").exists() == (end == "in_progress")


def test_files_of_a_request_whose_time_is_over_are_swept(
    live: Callable[..., Record], work_queue: WorkQueue, settings: WorkerSettings, client: redis.Redis
) -> None:
    objects = FolderObjects(settings.data_dir)
    live("io", "gpu", "io", objects=objects)
    sweeper = Sweeper(work_queue, objects, settings)
    sweeper._sweep()
    assert len(files(settings)) == 1
    client.zadd("zturbo:done", {"a": 0})
    sweeper._sweep()
    assert (work_queue.get("a"), files(settings)) == (None, [])


def test_request_deleted_while_its_picture_is_written_leaves_no_file(
    live: Callable[..., Record], scripts: Scripts, settings: WorkerSettings
) -> None:
    def cancel_and_delete() -> None:
        scripts.run(call.cancel(id="a", force=True))
        assert scripts.run(call.delete(id="a")) == "deleted"

    with pytest.raises(AssertionError, match="no record"):
        live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, cancel_and_delete))
    assert files(settings) == []


def test_files_of_a_cancelled_request_are_known_although_its_worker_died(
    live: Callable[..., Record], work_queue: WorkQueue, scripts: Scripts, settings: WorkerSettings
) -> None:
    def die() -> None:
        raise Died

    with pytest.raises(Died):
        live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, die))
    scripts.run(call.cancel(id="a", force=True))
    record = work_queue.get("a")
    (left,) = files(settings)
    assert record is not None
    assert left.parent.name in record.file_ids
