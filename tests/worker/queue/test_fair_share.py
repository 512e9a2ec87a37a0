"""One owner's many requests do not stop another's one."""

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from worker.config import WorkerSettings
from worker.queue import scripts
from worker.queue.requests import RequestStore
from worker.queue.scripts import Scripts
from worker.queue.work_queue import WorkQueue

OWNERS = ("ann", "bob", "cat")
MOST_IN_A_ROW = 2
"""Requests of one owner that are taken while another waits: the last of a round, the first of the next."""


class Line:
    """Submits, and takes as a GPU worker does; what waits is always prepared."""

    def __init__(self, client: redis.Redis) -> None:
        self._scripts = Scripts(client)
        self._work_queue = WorkQueue(client, WorkerSettings(_env_file=None))
        self._count = 0

    def submit(self, owner: str) -> str:
        request_id = f"r{self._count}"
        self._count += 1
        fields = {"model_id": "m", "input": "{}", "warnings": "[]"}
        self._scripts.run(scripts.submit(id=request_id, owner=owner, most=10_000, fields=fields))
        record = self._work_queue.next("io", f"p{self._count}", "io")
        assert record is not None
        self._work_queue.advance(record.id, f"p{self._count}", "generate", {})
        return request_id

    def take(self) -> str | None:
        """The id that is taken."""
        self._count += 1
        record = self._work_queue.next("gpu", f"g{self._count}", "gpu")
        return record.id if record else None


@pytest.fixture
def line(client: redis.Redis) -> Line:
    return Line(client)


def test_another_owners_one_request_is_next_whoever_has_many(line: Line) -> None:
    many = [line.submit("ann") for _ in range(50)]
    assert line.take() == many[0]
    one = line.submit("bob")
    assert [line.take(), line.take()] == [one, many[1]]


def test_owner_who_submits_one_after_the_other_takes_turns_with_one_who_has_many(line: Line) -> None:
    for _ in range(50):
        line.submit("ann")
    takes = []
    for _ in range(5):
        one = line.submit("bob")
        while (taken := line.take()) != one:
            takes.append(taken)
    assert len(takes) <= 5


def test_time_without_requests_earns_no_turns(line: Line) -> None:
    for _ in range(20):
        line.submit("ann")
        line.take()
    anns = [line.submit("ann") for _ in range(10)]
    bobs = [line.submit("bob") for _ in range(10)]
    first = {line.take() for _ in range(10)}
    assert (len(first.intersection(anns)), len(first.intersection(bobs))) == (5, 5)


@pytest.mark.anyio
async def test_cancelled_requests_cost_their_owner_no_turn(line: Line, requests: RequestStore) -> None:
    for _ in range(10):
        line.submit("bob")
    for request_id in [line.submit("ann") for _ in range(8)]:
        await requests.cancel(request_id)
    record = await requests.get(line.submit("ann"))
    assert record is not None
    assert record.position == 2


@profile(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.sampled_from([*OWNERS, "take"]), max_size=60))
def test_nobody_gets_more_than_two_turns_while_another_waits(client: redis.Redis, moves: list[str]) -> None:
    client.flushall()
    line = Line(client)
    owner_of: dict[str, str] = {}
    waiting = {owner: list[str]() for owner in OWNERS}
    turns = {(taker, other): 0 for taker in OWNERS for other in OWNERS}
    for move in [*moves, *["take"] * len(moves)]:
        if move != "take":
            request_id = line.submit(move)
            owner_of[request_id] = move
            waiting[move].append(request_id)
            continue
        taken = line.take()
        if taken is None:
            continue
        taker = owner_of[taken]
        assert taken == waiting[taker].pop(0), "each owner's own requests keep their order"
        for other in OWNERS:
            turns[other, taker] = 0
            turns[taker, other] = turns[taker, other] + 1 if waiting[other] and other != taker else 0
            assert turns[taker, other] <= MOST_IN_A_ROW
