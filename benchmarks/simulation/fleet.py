"""A fleet of up to a thousand GPUs on one Redis, or on several, in a small discrete-event simulation.

    python -m benchmarks.simulation.fleet --check

Requests come at random to stations with as many places as there are workers; every move on them holds Redis,
a station with one place, for as long as benchmarks.redis_cost has measured. How long the stages take is given
by options. Each fleet is one row of benchmarks/results/fleet.jsonl; docs/scale.md reads them.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import simpy

from benchmarks.redis_cost import STEPS
from benchmarks.run import RESULTS, option_parser, percentiles, write_row

FLEETS = ((1, 1), (8, 1), (64, 1), (256, 1), (512, 1), (1000, 1), (1000, 4))
"""GPUs, and servers with a Redis each that they are split among."""
IO_LOAD = 0.7
"""Share of the time that io workers are to be busy."""
HELD = 0.95
"""Share of what is submitted that a fleet has to make in time to hold."""

Process = Generator[simpy.Event, Any, None]


def main() -> int:
    options = _options()
    costs = measured_costs()
    held = {}
    for gpus, servers in FLEETS:
        figures = [Server(gpus // servers, options, costs, number).run() for number in range(servers)]
        worst = max(figures, key=lambda each: float(each["redis_busy"]))
        held[gpus, servers] = worst["pictures_per_s"] >= HELD * worst["submitted_per_s"]
        write_row("fleet.jsonl", {"gpus": gpus, "servers": servers, "of_each_server": worst}, options)
    if options.check and not (held[256, 1] and held[1000, 4]):
        print("FAILED: a fleet that should be held is not", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = option_parser("simulation.fleet", __doc__, check="unless 256 GPUs on one Redis are held")
    parser.add_argument("--picture", type=float, default=0.906, help="seconds of a GPU; SGLang's H100 figure")
    parser.add_argument("--prepare", type=float, default=0.05, help="seconds of an io worker")
    parser.add_argument("--finish", type=float, default=0.1, help="seconds of an io worker")
    parser.add_argument("--load", type=float, default=0.9, help="asked, of what the GPUs can make")
    parser.add_argument("--seconds", type=float, default=20.0, help="looked at, after as many before")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def measured_costs() -> dict[str, float]:
    """Seconds of Redis by move, of the last run with a thousand requests waiting."""
    *_, last = (RESULTS / "redis.jsonl").read_text().splitlines()
    measured: Mapping[str, float] = json.loads(last)["waiting_1000"]["microseconds"]
    return {move: cost / 1e6 for move, cost in measured.items()}


@dataclass
class Seen:
    """What was seen in the second half of a run."""

    submitted: int = 0
    finished: int = 0
    redis_waits: list[float] = field(default_factory=list)
    """Milliseconds that a move waited for Redis."""
    delays: list[float] = field(default_factory=list)
    """Seconds of a request beyond its three stages."""
    redis_busy: float = 0.0
    gpu_busy: float = 0.0
    bells: int = 0


class Server:
    """One Redis and its workers."""

    def __init__(self, gpus: int, options: argparse.Namespace, costs: Mapping[str, float], seed: int) -> None:
        self._env = simpy.Environment()
        self._costs = costs
        self._options = options
        self._random = random.Random(options.seed + seed)
        self._rate = options.load * gpus / options.picture
        io_workers = math.ceil(self._rate * (options.prepare + options.finish) / IO_LOAD)
        self._redis = simpy.Resource(self._env, 1)
        self._io = simpy.Resource(self._env, io_workers)
        self._gpu = simpy.Resource(self._env, gpus)
        self._seen = Seen()

    def run(self) -> dict[str, Any]:
        seconds = self._options.seconds
        self._env.process(self._callers())
        self._env.process(self._reconcilers())
        self._env.run(until=seconds)
        seen = self._seen = Seen()
        self._env.run(until=2 * seconds)
        return {
            "gpus": self._gpu.capacity,
            "io_workers": self._io.capacity,
            "submitted_per_s": round(seen.submitted / seconds, 1),
            "pictures_per_s": round(seen.finished / seconds, 1),
            "gpu_busy": round(seen.gpu_busy / seconds / self._gpu.capacity, 3),
            "redis_busy": round(seen.redis_busy / seconds, 3),
            "redis_wait_ms": percentiles(seen.redis_waits),
            "delay_s": percentiles(seen.delays),
            "bells_a_picture": round(seen.bells / max(1, seen.finished), 2),
        }

    def _callers(self) -> Process:
        while True:
            yield self._env.timeout(self._random.expovariate(self._rate))
            self._seen.submitted += 1
            self._env.process(self._request())

    def _reconcilers(self) -> Process:
        """Each worker process once a second, one after the other."""
        while True:
            yield self._env.timeout(1 / (self._io.capacity + self._gpu.capacity))
            self._env.process(self._ask("worker_second"))

    def _request(self) -> Process:
        options, begun = self._options, self._env.now
        yield from self._ask("submit")
        self._env.process(self._poll())
        yield from self._stage(self._io, options.prepare, "next_io", "advance")
        yield from self._stage(self._gpu, options.picture, "next_gpu", "advance")
        yield from self._stage(self._io, options.finish, "next_io", "close")
        self._seen.finished += 1
        work = options.prepare + options.picture + options.finish
        self._seen.delays.append(self._env.now - begun - work)

    def _poll(self) -> Process:
        for _ in range(3):
            yield self._env.timeout(self._options.picture / 2)
            yield from self._ask("status")

    def _stage(self, workers: simpy.Resource, seconds: float, take: str, hand_on: str) -> Process:
        # Who comes off a request takes the next that waits; only one that stands idle has to hear a bell.
        if workers.count < workers.capacity:
            self._seen.bells += 1
            yield from self._ask("bell")
        with workers.request() as worker:
            yield worker
            yield from self._ask(take)
            if workers is self._gpu:
                self._env.process(self._beats(seconds))
                self._seen.gpu_busy += seconds
            yield self._env.timeout(seconds)
            yield from self._ask(hand_on)

    def _beats(self, seconds: float) -> Process:
        """From the lease's own thread: the GPU does not wait for them."""
        for _ in range(STEPS):
            yield self._env.timeout(seconds / STEPS)
            yield from self._ask("beat", "watched")

    def _ask(self, *moves: str) -> Process:
        """Waits for Redis and holds it, for a time around what was measured."""
        begun = self._env.now
        with self._redis.request() as turn:
            yield turn
            seen = self._seen
            seen.redis_waits.append(1000 * (self._env.now - begun))
            seconds = sum(self._costs[move] for move in moves) * self._random.uniform(0.5, 1.5)
            seen.redis_busy += seconds
            yield self._env.timeout(seconds)


if __name__ == "__main__":
    sys.exit(main())
