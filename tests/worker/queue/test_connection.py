"""What the API's side says when Redis is away."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from redis.exceptions import ResponseError

from tests.support.redis_server import RedisServer
from worker.config import WorkerSettings
from worker.errors import StoreUnavailable
from worker.queue import connection
from worker.queue.connection import API_CALLS, RedisGate, is_away
from worker.queue.requests import RequestStore

pytestmark = pytest.mark.anyio


async def test_every_call_says_so_soon_and_works_again_later(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = WorkerSettings(_env_file=None, data_dir=tmp_path, redis_url=redis_server.url)
    requests = RequestStore.connect(settings)
    await requests.submit("a", "model", {}, "local", [])
    redis_server.kill()
    started = time.monotonic()
    calls = [
        lambda: requests.submit("b", "model", {}, "local", []),
        lambda: requests.get("a"),
        lambda: requests.cancel("a"),
        lambda: requests.delete("a"),
        lambda: requests.list_owned("local"),
        requests.stats,
        requests.ping,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="Redis"):
            await call()
    assert time.monotonic() - started < 2 * len(calls)
    redis_server.start()
    record = await requests.get("a")
    assert record is not None
    assert record.state == "in_queue", "what was answered is kept over a kill -9 of Redis"
    await requests.close()


async def test_server_without_room_for_more_counts_as_away(
    requests: RequestStore, client: redis.Redis
) -> None:
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await requests.submit("a", "model", {}, "local", [])
    finally:
        client.config_set("maxmemory", "0")


async def test_server_that_became_a_replica_counts_as_away(
    requests: RequestStore, client: redis.Redis
) -> None:
    client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreUnavailable):
            await requests.submit("a", "model", {}, "local", [])
    finally:
        client.replicaof("NO", "ONE")


async def test_full_disk_counts_as_away_and_a_fault_of_ours_does_not() -> None:
    assert is_away(ResponseError("MISCONF Errors writing to the AOF file: No space left on device"))
    with pytest.raises(ResponseError):
        async with RedisGate():
            raise ResponseError("ERR unknown command")


async def test_a_thousand_calls_at_once_are_answered_in_their_turn(requests: RequestStore) -> None:
    before = (await requests._client.info("clients"))["connected_clients"]
    found = await asyncio.gather(*(requests.get("unknown") for _ in range(1000)))
    assert found == [None] * 1000
    after = (await requests._client.info("clients"))["connected_clients"]
    assert after <= before + API_CALLS


async def test_who_gets_no_turn_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SOCKET_SECONDS", 0.01)
    reaching = RedisGate()
    async with AsyncExitStack() as turns:
        for _ in range(API_CALLS):
            await turns.enter_async_context(reaching)
        with pytest.raises(StoreUnavailable):
            await reaching.__aenter__()
    async with reaching:
        pass
