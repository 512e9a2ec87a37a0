"""The commands of docs/upgrades.md that back a data folder up and restore it, run as they stand there."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import wait_for
from worker.config import WorkerSettings
from worker.host import parent_death
from worker.host.embedded_redis import EmbeddedRedis, find_server, held
from worker.queue.connection import connect
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue
from worker.secret import Secret
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

pytestmark = pytest.mark.anyio

DOCUMENT = (Path(__file__).parents[2] / "docs" / "upgrades.md").read_text()


def run(name: str, data_dir: Path, backup: Path) -> None:
    """The lines under `<!-- tested: name -->`."""
    block = re.search(rf"<!-- tested: {name} -->\n```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None
    places = {"ZTURBO_DATA_DIR": str(data_dir), "BACKUP": str(backup)}
    subprocess.run(["bash", "-euc", block[1]], env=os.environ | places, check=True, capture_output=True)


@contextmanager
def served(data_dir: Path) -> Iterator[WorkerSettings]:
    """The embedded Redis on a data folder, as `serve` runs it."""
    with held(data_dir / "redis") as lock_fd:
        server = EmbeddedRedis(find_server(), data_dir / "redis", lock_fd)
        program = server.program
        process = parent_death.spawn(
            program.command, env=os.environ, stdout=subprocess.DEVNULL, pass_fds=program.pass_fds
        )
        try:
            wait_for(server.ready)
            yield WorkerSettings(_env_file=None, data_dir=data_dir, redis_url=server.url)
        finally:
            process.terminate()
            process.wait(10)


async def fill(settings: WorkerSettings) -> str:
    """A waiting request, a picture, this server's secret, and a download; the picture's id."""
    requests = RequestStore.connect(settings)
    for number in range(20):
        await requests.submit(f"r{number}", "model", {"prompt": "a fox"}, "ann", [])
    await requests.close()
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", b"pixels")
    Secret(settings.data_dir).derive("webhook", "ann")
    (settings.cache_path / "files").mkdir(parents=True)
    (settings.cache_path / "files" / "a.safetensors").write_bytes(bytes(10))
    return file_id


def check(before: Path, restored: Path, file_id: str) -> None:
    with served(restored) as settings, connect(settings.redis_url or "") as client:
        work_queue = WorkQueue(client, settings)
        assert [record.id for n in range(20) if (record := work_queue.get(f"r{n}"))] == [
            f"r{n}" for n in range(20)
        ]
        taken = work_queue.next("io", "token", "worker")
        assert taken is not None
        assert taken.id == "r0"
    assert Storage(open_objects(settings)).read(file_id, "image.png") == b"pixels"
    assert Secret(restored).derive("webhook", "ann") == Secret(before).derive("webhook", "ann")
    assert not settings.cache_path.exists()


async def test_stopped_server_is_backed_up_and_restored(tmp_path: Path) -> None:
    with served(tmp_path / "before") as settings:
        file_id = await fill(settings)
    run("stopped", tmp_path / "before", tmp_path / "backup.tar.gz")
    run("restore", tmp_path / "after", tmp_path / "backup.tar.gz")
    check(tmp_path / "before", tmp_path / "after", file_id)


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is not on this machine")
async def test_running_server_is_backed_up_and_restored(tmp_path: Path) -> None:
    with served(tmp_path / "before") as settings:
        file_id = await fill(settings)
        run("running", tmp_path / "before", tmp_path / "backup.tar")
        with connect(settings.redis_url or "") as client:
            assert client.config_get("auto-aof-rewrite-percentage") == {"auto-aof-rewrite-percentage": "100"}
    run("restore", tmp_path / "after", tmp_path / "backup.tar")
    check(tmp_path / "before", tmp_path / "after", file_id)
