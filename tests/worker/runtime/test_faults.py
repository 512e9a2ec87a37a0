"""A full disk, a folder that cannot be written, a Redis without memory, a torn append-only file: told
plainly, and nothing that was there is harmed.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.processes import wait_for
from tests.worker.runtime.crew import IMAGE, MODEL, Crew
from worker.config import WorkerSettings
from worker.errors import StorageError, StoreUnavailable
from worker.host import parent_death
from worker.host.embedded_redis import EmbeddedRedis, find_server, held
from worker.queue.connection import connect
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue
from worker.storage.folder import FolderObjects
from worker.storage.pictures import Storage, new_file_id
from worker.storage.workspace import Workspace

pytestmark = pytest.mark.anyio


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_told_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = FolderObjects(tmp_path)
    storage, file_id = Storage(objects), new_file_id()
    storage.put(file_id, "a.png", b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        storage.put(file_id, "a.png", b"after")
    with pytest.raises(StorageError, match="No space left on device"):
        Workspace(objects).detach_pictures("a", {"image_url": "data:" + "x" * 20_000})
    monkeypatch.undo()
    assert storage.read(file_id, "a.png") == b"before"
    assert not list(tmp_path.rglob("*.part"))


async def test_request_fails_with_the_reason_when_its_picture_cannot_be_kept(crew: Crew) -> None:
    crew.start("io")
    crew.start("gpu")
    await crew.submit("before")
    assert (await crew.until("before")).state == "succeeded"
    (kept,) = crew.outputs()
    # A file where the folders should be: not even root can write below it.
    outputs = crew.settings.data_dir / "outputs"
    outputs.rename(outputs.with_name("aside"))
    outputs.write_bytes(b"")
    await crew.submit("a")
    record = await crew.until("a")
    assert record.error is not None
    assert record.error["type"] == "storage_failed"
    assert "could not be kept" in record.error["message"]
    assert str(crew.settings.data_dir) not in record.error["message"]
    outputs.unlink()
    outputs.with_name("aside").rename(outputs)
    await crew.submit("after")
    assert (await crew.until("after")).state == "succeeded"
    assert kept in crew.outputs()


async def test_redis_without_memory_refuses_new_requests_and_goes_on_when_there_is_some(
    redis_url: str, client: redis.Redis, settings: WorkerSettings
) -> None:
    requests, body = RequestStore.connect(settings), {"prompt": "a fox", "image_url": IMAGE}
    await requests.submit("before", MODEL, body, "local", [])
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await requests.submit("refused", MODEL, body, "local", [])
        with pytest.raises(StoreUnavailable):
            await requests.ping()
    finally:
        client.config_set("maxmemory", "0")
    before = await requests.get("before")
    assert before is not None
    assert (before.state, before.position) == ("in_queue", 0)
    assert await requests.get("refused") is None
    assert await requests.submit("after", MODEL, body, "local", []) == ("after", 1)
    await requests.close()


@contextmanager
def running(server: EmbeddedRedis) -> Iterator["subprocess.Popen[bytes]"]:
    program = server.program
    process = parent_death.spawn(
        program.command, env=os.environ, stdout=subprocess.DEVNULL, pass_fds=program.pass_fds
    )
    try:
        wait_for(server.ready)
        yield process
    finally:
        process.terminate()
        process.wait(10)


async def test_torn_tail_of_the_append_only_file_costs_the_last_write_at_most(tmp_path: Path) -> None:
    with held(tmp_path / "redis") as lock_fd:
        server = EmbeddedRedis(find_server(), tmp_path / "redis", lock_fd)
        settings = WorkerSettings(_env_file=None, data_dir=tmp_path, redis_url=server.url)
        with running(server) as process:
            requests = RequestStore.connect(settings)
            for number in range(20):
                await requests.submit(f"r{number}", MODEL, {"image_url": IMAGE}, "local", [])
            await requests.close()
            process.kill()
            process.wait()
        (log,) = (tmp_path / "redis").rglob("*.incr.aof")
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size - 25)
        with running(server), connect(server.url) as client:
            work_queue = WorkQueue(client, settings)
            found = [record for number in range(20) if (record := work_queue.get(f"r{number}"))]
            assert len(found) >= 19
            assert [record.id for record in found] == client.zrange("zturbo:line", 0, -1)
            taken = work_queue.next("io", "t", "w")
            assert taken is not None
            assert taken.id == "r0"
