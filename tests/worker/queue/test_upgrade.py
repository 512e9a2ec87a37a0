"""What an older server left in its append-only file, this one reads and brings to an end."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from tests.support.redis_server import RedisServer
from tests.worker.runtime.crew import Crew
from worker.config import WorkerSettings
from worker.queue import scripts
from worker.queue.connection import connect
from worker.queue.record import RECORD_VERSION
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue
from worker.storage.backend import open_objects
from worker.storage.workspace import Workspace

pytestmark = pytest.mark.anyio

STORED = sorted((Path(__file__).parent / "stored").glob("*.aof"))
"""One for each version of the record before the present one, made by tests.worker.queue.stored_aof."""

STATES = {
    "succeeded": ("succeeded", "finish"),
    "failed": ("failed", "generate"),
    "cancelled": ("cancelled", "prepare"),
    "finishing": ("in_progress", "finish"),
    "running": ("in_progress", "generate"),
    "prepared": ("in_queue", "generate"),
    "submitted": ("in_queue", "prepare"),
}


@pytest.fixture(params=STORED, ids=lambda path: path.stem)
def older_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    server = RedisServer(aof=request.param)
    yield server
    server.remove()


@pytest.fixture
def made(older_redis: RedisServer) -> dict[str, str]:
    """Ids of the stored requests by what had become of them."""
    with connect(older_redis.url) as client:
        made: dict[str, str] = client.hgetall("made")  # type: ignore[assignment]
    return made


def test_every_older_version_is_stored() -> None:
    assert [path.stem for path in STORED] == [f"v{version}" for version in range(RECORD_VERSION)]


async def test_older_records_are_read(older_redis: RedisServer, made: dict[str, str], tmp_path: Path) -> None:
    requests = RequestStore.connect(
        WorkerSettings(_env_file=None, redis_url=older_redis.url, data_dir=tmp_path)
    )
    records = {state: await requests.get(request_id) for state, request_id in made.items()}
    page = await requests.list_owned("local")
    await requests.close()
    found = {state: (record.state, record.stage) for state, record in records.items() if record}
    assert found == STATES
    assert len(page.records) == len(made)
    succeeded, failed, prepared, submitted = (
        records[state] for state in ("succeeded", "failed", "prepared", "submitted")
    )
    assert succeeded is not None
    assert succeeded.output is not None
    assert succeeded.output["image"]["name"] == "image.webp"
    assert [attempt["status"] for attempt in succeeded.deliveries] == [500]
    assert failed is not None
    assert failed.error == {"type": "bad_output", "message": "The picture is all black."}
    assert prepared is not None
    assert submitted is not None
    assert (prepared.position, submitted.position) == (0, 1)


async def test_older_requests_are_brought_to_an_end(
    older_redis: RedisServer, made: dict[str, str], tmp_path: Path
) -> None:
    crew = Crew(older_redis.url, tmp_path, lease_seconds=0.5)
    try:
        finishing = await crew.get(made["finishing"])
        pixels = np.zeros((512, 512, 3), np.uint8)
        # The pixels lay in the data folder, beside the append-only file.
        Workspace(open_objects(crew.settings)).save(finishing.id, "token", pixels)
        # The file grows older than any retention.
        crew.start("io", ZTURBO_RETENTION_DAYS="100000")
        crew.start("gpu")
        for state in ("finishing", "running", "prepared", "submitted"):
            record = await crew.until(made[state])
            assert (state, record.state, record.error) == (state, "succeeded", None)
        assert (await crew.requests.due_webhooks(10, 60))[0] in (made["succeeded"], made["submitted"])
        assert (await crew.get(made["failed"])).state == "failed"
        assert (await crew.get(made["cancelled"])).state == "cancelled"
        assert await crew.requests.delete(made["succeeded"])
        assert await crew.requests.get(made["succeeded"]) is None
    finally:
        await crew.close()


def test_older_records_expire(older_redis: RedisServer, made: dict[str, str]) -> None:
    settings = WorkerSettings(_env_file=None, retention_days=1e-6)
    with connect(older_redis.url) as client:
        work_queue = WorkQueue(client, settings)
        forgotten = {record.id for record in work_queue.forget_expired(10)}
        assert forgotten == {made["succeeded"], made["failed"], made["cancelled"]}
        assert work_queue.get(made["failed"]) is None


async def test_request_of_a_newer_version_waits_for_a_newer_worker(
    requests: RequestStore, work_queue: WorkQueue, client: redis.Redis
) -> None:
    await requests.submit("a", "model", {}, "local", [])
    client.hset("zturbo:req:a", "version", RECORD_VERSION + 1)
    assert work_queue.next("io", "token", "older") is None
    record = await requests.get("a")
    assert record is not None
    assert (record.state, record.attempt) == ("in_queue", 0)
    newer = scripts.next(
        queue="io", token="another", worker_id="newer", lease_ms=1000, known_version=RECORD_VERSION + 1
    )
    assert work_queue._scripts.run(newer) is not None
