"""The scripts against a model of them in Python: any order of moves, by workers alive, silent and dead.

`ZTURBO_TEST_EXAMPLES=2000 pytest tests/worker/queue/test_work_queue_model.py` looks longer than the
suite does.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from benchmarks.simulation.affinity import Waiting, choose
from worker.config import WorkerSettings
from worker.errors import LeaseLost
from worker.queue import scripts
from worker.queue.affinity import NO_WEIGHTS, Weights
from worker.queue.connection import connect
from worker.queue.keys import Queue, Stage
from worker.queue.scripts import Queued, Scripts
from worker.queue.work_queue import WorkQueue

EXAMPLES = int(os.environ.get("ZTURBO_TEST_EXAMPLES", "40"))
IDS = ("a", "b", "c", "x", "y", "z")
OWNERS = dict.fromkeys(IDS[:3], "ann") | dict.fromkeys(IDS[3:], "bob")
MAX_QUEUE = 5
MAX_PER_KEY = 3
MAX_ATTEMPTS = 3
LATE_SECONDS = 60
WEIGHTS = [NO_WEIGHTS, Weights("union", ""), Weights("union", "ink"), Weights("", "ink")]
TURN = 0.001

QUEUE: dict[str, Queue] = {"prepare": "io", "generate": "gpu", "finish": "io"}
NEXT: dict[str, Stage] = {"prepare": "generate", "generate": "finish"}


@dataclass
class Modelled:
    """A request as it should be."""

    owner: str
    place: tuple[int, int]
    """Round and number of submission: the order of the line."""
    created: float = 0.0
    """Seconds after the others."""
    needs: Weights = NO_WEIGHTS
    state: str = "in_queue"
    stage: str = "prepare"
    token: str | None = None
    attempt: int = 0
    passed: str | None = None
    said: dict[str, Any] = field(default_factory=dict)
    """The field that tells the outcome, by its name."""

    @property
    def final(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def waits(self) -> bool:
        return not self.final and self.token is None

    def hand_back(self) -> None:
        self.token = None
        if self.stage == "generate":
            self.state = "in_queue"

    def standing(self, token: str, move: str) -> str:
        if self.token == token:
            return "held"
        if self.passed == f"{token}:{move}":
            return "repeated"
        return "cancelled" if self.state == "cancelled" else "fenced"


class Moves(RuleBasedStateMachine):
    """Each rule makes one move on Redis and on the model, and compares the answers."""

    client: redis.Redis
    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        settings = WorkerSettings(_env_file=None, max_attempts=MAX_ATTEMPTS, lease_seconds=3600)
        self.work_queue = WorkQueue(self.client, settings)
        self.scripts = Scripts(self.client)
        self.model: dict[str, Modelled] = {}
        self.held: dict[str, tuple[str, str]] = {}
        """What each token was handed: a request and its stage."""
        self.keys: dict[str, tuple[str, str]] = {}
        """What each of the owners' own keys stands for: a request and a digest."""
        self.submitted = self.asked = 0
        self.round = 0
        self.rounds: dict[str, int] = {}

    @rule(request_id=st.sampled_from(IDS), key=st.sampled_from(["", "k"]), digest=st.sampled_from(["1", "2"]))
    def submit(self, request_id: str, key: str, digest: str) -> None:
        owner = OWNERS[request_id]
        key = key and f"{owner}-{key}"
        answer = self.scripts.run(
            scripts.submit(
                id=request_id,
                owner=owner,
                key=key,
                digest=digest,
                key_seconds=3600,
                most=MAX_QUEUE,
                most_of_owner=MAX_PER_KEY,
                fields={"model_id": "m", "input": "{}", "warnings": "[]"},
            )
        )
        named, stands_for = self.keys.get(key, ("", ""))
        if named in self.model:
            request_id = named
        if named in self.model and stands_for != digest:
            assert answer == ("key_reused", 0)
        elif request_id in self.model:
            assert isinstance(answer, Queued)
            assert answer.id == request_id
        elif (queued := self._queued()[owner]) and len(self._line()) >= MAX_QUEUE:
            assert answer[0] == "line_full"
        elif queued >= MAX_PER_KEY:
            assert answer[0] == "share_full"
        else:
            self.submitted += 1
            self.rounds[owner] = max(self.round, self.rounds.get(owner, -1) + 1)
            self.model[request_id] = Modelled(owner, (self.rounds[owner], self.submitted))
            assert isinstance(answer, Queued)
            assert answer[:2] == (request_id, self._line().index(request_id))
            if key:
                self.keys[key] = (request_id, digest)

    @rule(
        target=tokens,
        queue=st.sampled_from(["io", "gpu"]),
        worker=st.sampled_from(["1", "2"]),
        held=st.sampled_from(WEIGHTS),
    )
    def take(self, queue: Queue, worker: str, held: Weights) -> Any:
        self.asked += 1
        token = f"t{self.asked}"
        record = self.work_queue.next(queue, token, f"{queue}-{worker}", held)
        waiting = [(id, each) for id, each in self.model.items() if each.waits and QUEUE[each.stage] == queue]
        if not waiting:
            assert record is None
            return multiple()
        if queue == "io":
            expected, request = min(waiting, key=lambda one: (one[1].stage == "prepare", one[1].place))
        else:
            line = sorted(Waiting(*each.place, each.created, each.needs) for _, each in waiting)
            chosen = choose(line, held)
            expected, request = next(one for one in waiting if one[1].place == chosen[:2])
        assert record is not None
        assert record.id == expected
        request.token, request.attempt = token, request.attempt + 1
        if request.stage == "generate":
            request.state = "in_progress"
            self.round = max(self.round, request.place[0])
            self._left_line(request)
        assert (record.attempt, record.state, record.stage) == (request.attempt, request.state, request.stage)
        self.held[token] = (expected, request.stage)
        return token

    @rule(token=tokens)
    def take_again(self, token: str) -> None:
        """As after a lost reply."""
        request_id, stage = self.held[token]
        record = self.work_queue.next(QUEUE[stage], token, "w")
        request = self.model.get(request_id)
        mine = request is not None and request.token == token
        assert (record.id if record else None) == (request_id if mine else None)

    @rule(token=tokens)
    def beat(self, token: str) -> None:
        assert self.work_queue.beat(self.held[token][0], token) == self._standing(token, "beat")

    @rule(request_id=st.sampled_from(IDS))
    def come_late(self, request_id: str) -> None:
        if request_id in self.model:
            self.model[request_id].created += LATE_SECONDS
            self.client.hincrby(f"zturbo:req:{request_id}", "created_at", 1000 * LATE_SECONDS)

    @rule(token=tokens, needs=st.sampled_from(WEIGHTS))
    def advance(self, token: str, needs: Weights) -> None:
        request_id, stage = self.held[token]
        if stage not in NEXT:
            return
        standing = self._standing(token, "advance")
        if self._allowed(
            standing, lambda: self.work_queue.advance(request_id, token, NEXT[stage], {}, needs)
        ):
            request = self.model[request_id]
            request.needs = needs
            request.stage, request.token, request.passed = NEXT[stage], None, f"{token}:advance"
            request.attempt = 0

    @rule(token=tokens)
    def finish(self, token: str) -> None:
        request_id, stage = self.held[token]
        if stage != "finish":
            return
        standing, output = self._standing(token, "close"), {"by": token}
        if self._allowed(standing, lambda: self.work_queue.finish(request_id, token, output)):
            self._close(self.model[request_id], "succeeded", output=output)
            self.model[request_id].passed = f"{token}:close"

    @rule(token=tokens)
    def fail(self, token: str) -> None:
        request_id, _ = self.held[token]
        standing = self._standing(token, "close")
        if self._allowed(standing, lambda: self.work_queue.fail(request_id, token, "broken", token)):
            self._close(self.model[request_id], "failed", error={"type": "broken", "message": token})
            self.model[request_id].passed = f"{token}:close"

    @rule(token=tokens)
    def release(self, token: str) -> None:
        request_id, _ = self.held[token]
        held = self._standing(token, "release") == "held"
        self.work_queue.release(request_id, token)
        if held:
            request = self.model[request_id]
            request.attempt, request.passed = request.attempt - 1, f"{token}:release"
            request.hand_back()

    @rule(request_id=st.sampled_from(IDS), force=st.booleans())
    def cancel(self, request_id: str, force: bool) -> None:
        answer = self.scripts.run(scripts.cancel(id=request_id, force=force))
        request = self.model.get(request_id)
        if request is None:
            assert answer is None
            return
        if request.state == "in_queue" or (force and request.state == "in_progress"):
            self._close(request, "cancelled")
        outcome = "cancelled" if request.state == "cancelled" else "not_cancellable"
        assert answer == (outcome, request.state)

    @rule(request_id=st.sampled_from(IDS))
    def delete(self, request_id: str) -> None:
        answer = self.scripts.run(scripts.delete(id=request_id))
        request = self.model.get(request_id)
        assert answer == ("unknown" if request is None else "deleted" if request.final else "active")
        if answer == "deleted":
            del self.model[request_id]

    @rule(queue=st.sampled_from(["io", "gpu"]), worker=st.sampled_from(["1", "2"]))
    def die(self, queue: Queue, worker: str) -> None:
        """The supervisor saw it; whoever reaps next takes what it held."""
        worker_id = f"{queue}-{worker}"
        lost = [id for id, _ in self._held_by(worker_id)]
        assert self.work_queue.declare_dead(queue, worker_id) == len(lost)
        self._reap(lost)

    @rule(token=tokens)
    def fall_silent(self, token: str) -> None:
        """The lease runs out."""
        request_id, _ = self.held[token]
        if request_id not in self.model or self.model[request_id].token != token:
            return
        self.client.zadd("zturbo:leases", {request_id: 0})
        self._reap([request_id])

    def _reap(self, lost: list[str]) -> None:
        while (reaped := self.work_queue.reap(TURN)) is None:
            pass
        given_up = 0
        for request in (self.model[id] for id in lost):
            if request.attempt >= MAX_ATTEMPTS:
                self._close(request, "failed")
                given_up += 1
            else:
                request.hand_back()
        assert reaped[:2] == (len(lost) - given_up, given_up)

    def _close(self, request: Modelled, state: str, **said: Any) -> None:
        waited = request.state == "in_queue"
        request.state, request.token, request.said = state, None, said
        if waited:
            self._left_line(request)

    def _left_line(self, request: Modelled) -> None:
        if all(self.model[id].owner != request.owner for id in self._line()):
            self.rounds[request.owner] = self.round

    def _held_by(self, worker_id: str) -> Iterator[tuple[str, Modelled]]:
        for request_id, request in self.model.items():
            if request.token and self.client.hget(f"zturbo:req:{request_id}", "worker") == worker_id:
                yield request_id, request

    def _standing(self, token: str, move: str) -> str:
        request = self.model.get(self.held[token][0])
        return request.standing(token, move) if request else "gone"

    def _allowed(self, standing: str, move: Any) -> bool:
        """Makes the move, which must be refused unless the token stands so; True when it counts."""
        if standing in ("held", "repeated"):
            move()
        else:
            with pytest.raises(LeaseLost, match=standing):
                move()
        return standing == "held"

    def _line(self) -> list[str]:
        waiting = [(each.place, id) for id, each in self.model.items() if each.state == "in_queue"]
        return [id for _, id in sorted(waiting)]

    def _queued(self) -> Counter[str]:
        return Counter(self.model[id].owner for id in self._line())

    @invariant()
    def records_are_as_modelled(self) -> None:
        assert self.client.zrange("zturbo:line", 0, -1) == self._line()
        assert self.client.hgetall("zturbo:queued") == {
            owner: str(count) for owner, count in self._queued().items()
        }
        for queue in ("io", "gpu"):
            waits = {id for id, each in self.model.items() if each.waits and QUEUE[each.stage] == queue}
            assert set(self.client.zrange(f"zturbo:waiting:{queue}", 0, -1)) == waits
        assert set(self.client.zrange("zturbo:leases", 0, -1)) == {
            id for id, each in self.model.items() if each.token
        }
        assert set(self.client.zrange("zturbo:done", 0, -1)) == {
            id for id, each in self.model.items() if each.final
        }
        keys = {key.removeprefix("zturbo:req:") for key in self.client.keys("zturbo:req:*")}
        assert keys == set(self.model)
        for request_id, request in self.model.items():
            record = self.work_queue.get(request_id)
            assert record is not None
            assert (record.state, record.stage) == (request.state, request.stage)
            assert (record.output is not None) == (record.state == "succeeded")
            assert (record.error is not None) == (record.state == "failed")
            for name, value in request.said.items():
                assert getattr(record, name) == value


def test_any_order_of_moves_does_what_the_model_does(redis_url: str) -> None:
    with connect(redis_url) as client:
        Moves.client = client
        run_state_machine_as_test(
            Moves,
            settings=profile(
                max_examples=EXAMPLES, stateful_step_count=60, deadline=None, derandomize=EXAMPLES == 40
            ),
        )
