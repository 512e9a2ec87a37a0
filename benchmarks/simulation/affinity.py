"""What it saves that GPU workers prefer requests whose weights they hold, and what it costs others.

    python -m benchmarks.simulation.affinity --check

A simulation of the rule in worker/queue/lua/next.lua, which tests/worker/queue/test_work_queue_model.py
holds against `choose` here: requests of several keys come at random, their LoRA sets drawn by Zipf's law, to
1, 4 and 64 workers; once in order, once by preference. One run is one row of
benchmarks/results/affinity.jsonl.
"""

import argparse
import bisect
import heapq
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from benchmarks.run import option_parser, percentiles, write_row
from worker.queue.affinity import NO_WEIGHTS, Weights
from worker.queue.keys import AHEAD_ROUNDS, LOOKED_AT, PASSED_OVER_SECONDS

WORKERS = (1, 4, 64)


class Waiting(NamedTuple):
    """A request that waits for a GPU worker; they compare by their place in the line."""

    round: int
    number: int
    created: float
    needs: Weights


def loads(needed: Weights, held: Weights) -> int:
    """0 to 3: a ControlNet is a larger load than LoRAs."""
    return 2 * (needed.controlnet not in ("", held.controlnet)) + (needed.loras != held.loras)


def choose(line: Sequence[Waiting], held: Weights) -> Waiting:
    """Of a line in its order, the request that a worker takes which holds these weights."""
    chosen, least, oldest = line[0], 4, math.inf
    for request in line[:LOOKED_AT]:
        if request.round > line[0].round + AHEAD_ROUNDS:
            break
        load = loads(request.needs, held)
        if load < least and request.created - oldest <= PASSED_OVER_SECONDS:
            chosen, least = request, load
        oldest = min(oldest, request.created)
    return chosen


class Mix:
    """Requests as they come: sets of LoRAs by Zipf's law, now and then one of two other ControlNets."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._random = random.Random(options.seed)
        self._shares = [1 / rank**options.zipf for rank in range(1, options.sets + 1)]

    def needs(self) -> Weights:
        (loras,) = self._random.choices(range(len(self._shares)), self._shares)
        other = self._random.random() < self._options.other_controlnets
        return Weights(self._random.choice("ab") if other else "", str(loras))

    def arrivals(self, workers: int) -> Iterator[tuple[float, int, Weights]]:
        """Time, key and needs of each; so many that the workers, in order, are busy for that share."""
        rate = self._options.load * workers / self._seconds_in_order()
        at = 0.0
        for _ in range(self._options.requests):
            at += self._random.expovariate(rate)
            yield at, self._random.randrange(self._options.keys), self.needs()

    def _seconds_in_order(self) -> float:
        """Mean time of a request on a worker that takes them as they come."""
        options = self._options
        same = sum(share**2 for share in self._shares) / sum(self._shares) ** 2
        seconds: float = options.picture + (1 - same) * options.lora_change
        seconds += options.other_controlnets / 2 * options.controlnet_change
        return seconds


class Line:
    """Waiting requests in the order of worker/queue/lua/lib.lua: rounds, in each of which a key has one."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self._present = 0
        self._rounds: dict[int, int] = {}
        self._numbers = count()

    def join(self, at: float, key: int, needs: Weights) -> None:
        round = max(self._present, self._rounds.get(key, -1) + 1)
        self._rounds[key] = round
        bisect.insort(self.waiting, Waiting(round, next(self._numbers), at, needs))

    def take(self, request: Waiting) -> None:
        del self.waiting[bisect.bisect_left(self.waiting, request)]
        self._present = max(self._present, request.round)


@dataclass
class Outcome:
    waits: list[float] = field(default_factory=list)
    loading_seconds: float = 0.0
    busy_seconds: float = 0.0

    @property
    def loading_share(self) -> float:
        return self.loading_seconds / self.busy_seconds


def simulate(options: argparse.Namespace, workers: int, prefers: bool) -> Outcome:
    """Every request of the mix, worked off by so many workers."""
    arrivals = Mix(options).arrivals(workers)
    coming = next(arrivals, None)
    line, outcome = Line(), Outcome()
    held = [NO_WEIGHTS] * workers
    free = [(0.0, worker) for worker in range(workers)]
    """When each worker is free."""
    now = 0.0
    while coming or line.waiting:
        at, worker = free[0]
        if coming and (coming[0] <= max(at, now) or not line.waiting):
            now = max(now, coming[0])
            line.join(*coming)
            coming = next(arrivals, None)
            continue
        now = at = max(at, now)
        request = choose(line.waiting, held[worker]) if prefers else line.waiting[0]
        line.take(request)
        load = loads(request.needs, held[worker])
        loading = load // 2 * options.controlnet_change + load % 2 * options.lora_change
        held[worker] = held[worker].after(request.needs)
        outcome.waits.append(at - request.created)
        outcome.loading_seconds += loading
        outcome.busy_seconds += loading + options.picture
        heapq.heapreplace(free, (at + loading + options.picture, worker))
    return outcome


def main() -> int:
    options = _options()
    figures: dict[str, Any] = {}
    fine = True
    for workers in WORKERS:
        in_order, preferring = (simulate(options, workers, prefers) for prefers in (False, True))
        figures[f"workers_{workers}"] = {
            "loading_share": [round(each.loading_share, 3) for each in (in_order, preferring)],
            "wait_s": [percentiles(each.waits) for each in (in_order, preferring)],
            "longest_wait_s": [round(max(each.waits), 1) for each in (in_order, preferring)],
        }
        fine &= preferring.loading_share < in_order.loading_share
        fine &= max(preferring.waits) < max(in_order.waits) + PASSED_OVER_SECONDS
    write_row("affinity.jsonl", figures, options)
    return int(options.check and not fine)


def _options() -> argparse.Namespace:
    parser = option_parser("simulation.affinity", __doc__, check="when it saves nothing or somebody starves")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--load", type=float, default=0.95, help="share of the workers' time, in order")
    parser.add_argument("--keys", type=int, default=8, help="callers")
    parser.add_argument("--sets", type=int, default=50, help="LoRA sets")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent: how unequal their shares are")
    parser.add_argument("--other-controlnets", type=float, default=0.1, help="share of requests")
    parser.add_argument("--picture", type=float, default=0.84, help="seconds")
    parser.add_argument("--lora-change", type=float, default=0.2, help="seconds: read and merged")
    parser.add_argument("--controlnet-change", type=float, default=3.0, help="seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
