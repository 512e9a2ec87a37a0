"""A worker's container that was killed and started again has its host name still, and nobody else has it."""

import os

import anyio
import pytest

from tests.worker.runtime.solo import GreyEngine
from worker.config import WorkerSettings
from worker.host.parent_death import known_pid
from worker.queue.connection import connect
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue
from worker.runtime import process
from worker.runtime.process import WorkerProcess

pytestmark = pytest.mark.anyio

TURN_SECONDS = 0.001
NOBODY = 2**22 + 1
"""More than any process id."""


@pytest.mark.parametrize(
    ("host", "handed_back"), [("0123456789ab", 1), ("box", 0), ("0123456789abc", 0), ("deadbeefcafe.lan", 0)]
)
async def test_request_of_the_killed_one_waits_for_no_lease_where_the_host_is_a_container(
    host: str,
    handed_back: int,
    requests: RequestStore,
    work_queue: WorkQueue,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process.socket, "gethostname", lambda: host)
    await requests.submit("a", "model", {}, "local", [])
    assert work_queue.next("io", "token", f"io-{host}-{known_pid()}-0000") is not None
    WorkerProcess("io", settings, settings.redis_url or "", lambda _: GreyEngine())._bury_predecessors()
    await anyio.sleep(2 * TURN_SECONDS)
    reaped = work_queue.reap(TURN_SECONDS)
    assert reaped is not None
    assert reaped.handed_back == handed_back


@pytest.mark.parametrize(("pid", "handed_back"), [(NOBODY, 1), (os.getppid(), 0)])
async def test_who_had_another_process_id_is_dead_unless_it_is_a_process_now(
    pid: int,
    handed_back: int,
    requests: RequestStore,
    work_queue: WorkQueue,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each start of a container its worker may get another one."""
    monkeypatch.setattr(process.socket, "gethostname", lambda: "0123456789ab")
    other = f"io-0123456789ab-{pid}-0000"
    await requests.submit("a", "model", {}, "local", [])
    assert work_queue.next("io", "token", other) is not None
    Registry(connect(settings.redis_url or ""), hold_seconds=60).say(WorkerInfo(other, "io", "busy"))
    WorkerProcess("io", settings, settings.redis_url or "", lambda _: GreyEngine())._bury_predecessors()
    await anyio.sleep(2 * TURN_SECONDS)
    reaped = work_queue.reap(TURN_SECONDS)
    assert reaped is not None
    assert reaped.handed_back == handed_back


async def test_another_container_is_not_taken_for_dead(
    requests: RequestStore, work_queue: WorkQueue, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process.socket, "gethostname", lambda: "0123456789ab")
    await requests.submit("a", "model", {}, "local", [])
    assert work_queue.next("io", "token", f"io-ba9876543210-{known_pid()}-0000") is not None
    WorkerProcess("io", settings, settings.redis_url or "", lambda _: GreyEngine())._bury_predecessors()
    assert work_queue.beat("a", "token") == "held"
