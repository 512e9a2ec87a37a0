"""Kill the parts of a busy server at random moments, and count what became of every request.

    python -m benchmarks.chaos --seed 1 --check

Everything is real but the engine, which sleeps: the API, its workers and a Redis with an append-only file
run under our own supervisor, callers submit, poll and cancel over HTTP. Each run is one row of
benchmarks/results/chaos.jsonl; with `--check` the exit status is 1 when anything was lost, done twice or
wrong.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import httpx
import redis

from benchmarks.chaos.callers import Callers, Ticket
from benchmarks.chaos.stage import Server, staged
from benchmarks.chaos.verdict import Verdict, judge
from benchmarks.run import option_parser, percentiles, write_row
from worker.host.embedded_redis import Fsync
from worker.queue.record import FINAL_STATES
from worker.storage.folder import FolderObjects

START_SECONDS = 120.0
SETTLE_SECONDS = 240.0
"""After the last kill and the last submit; what is not final then is lost."""
PAUSE_SECONDS = (0.5, 1.5)
"""Between two kills."""
WATCH_SECONDS = 0.02
STOPPED_SECONDS = 1.0
INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM."""


@dataclass
class Story:
    """What a run did and saw."""

    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0
    settle_seconds: float = 0.0
    retries: int = 0
    fault: BaseException | None = None


def main() -> int:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="zturbo-chaos-"))
    story = Story()
    fsync = options.appendfsync, options.slow_fsync
    with staged(folder, *fsync, options.lease, options.requests + 1) as server:
        thread = threading.Thread(target=_torment, args=(server, options, story), daemon=True)
        thread.start()
        server.supervisor.run()
        thread.join(STOPPED_SECONDS)
    if thread.is_alive():
        shutil.rmtree(folder)
        return INTERRUPTED
    if story.fault:
        print(f"The run broke off; its log is {folder / 'log'}", file=sys.stderr)
        raise story.fault
    _report(server, options, story)
    if options.check and not story.verdict.clean:
        print(f"FAILED; the log is {folder / 'log'}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = option_parser("chaos", __doc__, check="unless nothing was lost, doubled or wrong")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20, help="of io and gpu workers")
    parser.add_argument("--redis-kills", type=int, default=5)
    parser.add_argument("--api-kills", type=int, default=2)
    parser.add_argument("--appendfsync", choices=get_args(Fsync), default="always")
    parser.add_argument(
        "--slow-fsync", type=float, default=0.0, help="seconds that each fsync of Redis takes longer (Linux)"
    )
    parser.add_argument("--lease", type=float, default=5.0, help="seconds; the product's default is 30")
    parser.add_argument(
        "--rolling", action="store_true", help="SIGTERM in place of kill -9, to every part in turn"
    )
    return parser.parse_args()


def _torment(server: Server, options: argparse.Namespace, story: Story) -> None:
    try:
        _run(server, options, story)
    except BaseException as fault:
        story.fault = fault
    finally:
        server.supervisor.stop()


def _run(server: Server, options: argparse.Namespace, story: Story) -> None:
    _wait_until_ready(server)
    chance = random.Random(options.seed)
    victims = _victims(options, chance)
    pauses = [chance.uniform(*PAUSE_SECONDS) for _ in victims]
    callers = Callers(server.url, server.settings.api_keys.partition(":")[2], options.seed)
    begun = time.monotonic()
    submitting = threading.Thread(target=callers.submit_all, args=(options.requests, sum(pauses)))
    submitting.start()
    watcher = Watcher(callers, options.seed)
    watcher.thread.start()
    for kind, pause in zip(victims, pauses, strict=True):
        time.sleep(pause)
        _kill_one(server, kind, chance, signal.SIGTERM if options.rolling else signal.SIGKILL)
    submitting.join()
    quiet = time.monotonic()
    _settle(callers)
    watcher.stop()
    story.seconds, story.settle_seconds = time.monotonic() - begun, time.monotonic() - quiet
    story.retries = callers.retries
    for ticket in callers.tickets:
        watcher.look(ticket)
    with redis.Redis.from_url(server.redis_url, decode_responses=True) as client:
        story.verdict = judge(client, FolderObjects(server.settings.data_dir), callers.tickets, watcher.seen)


def _victims(options: argparse.Namespace, chance: random.Random) -> list[str]:
    """Kinds of parts, in the order of their ends."""
    workers = [chance.choice(("io", "gpu")) for _ in range(options.kills)]
    victims = [*workers, *["redis"] * options.redis_kills, *["api"] * options.api_kills]
    chance.shuffle(victims)
    return victims


def _kill_one(server: Server, kind: str, chance: random.Random, number: signal.Signals) -> None:
    while not (running := server.parts(kind)) or not server.kill(chance.choice(running), number):
        time.sleep(0.05)


def _wait_until_ready(server: Server) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            if httpx.get(f"{server.url}/readyz", trust_env=False, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not become ready")


def _settle(callers: Callers) -> None:
    end = time.monotonic() + SETTLE_SECONDS
    open_tickets = list(callers.tickets)
    while open_tickets and time.monotonic() < end:
        open_tickets = [
            ticket
            for ticket in open_tickets
            if callers.result(ticket.request_id).get("status") not in (None, *FINAL_STATES)
        ]


class Watcher:
    """Reads results at random while the run goes on: one that is final must stay as it is."""

    def __init__(self, callers: Callers, seed: int) -> None:
        self.seen: dict[str, set[str]] = {}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._callers = callers
        self._random = random.Random(seed)
        self._stopped = threading.Event()

    def look(self, ticket: Ticket) -> None:
        result = self._callers.result(ticket.request_id)
        if result.get("status") in FINAL_STATES:
            final = f"{result['status']} {result.get('output')} {result.get('error')}"
            self.seen.setdefault(ticket.request_id, set()).add(final)

    def stop(self) -> None:
        self._stopped.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(WATCH_SECONDS):
            if self._callers.tickets:
                self.look(self._random.choice(self._callers.tickets))


def _report(server: Server, options: argparse.Namespace, story: Story) -> None:
    ended = [death for death in server.deaths if death.name.startswith(("io", "gpu"))]
    write_row(
        "chaos.jsonl",
        {
            "redis": server.redis_name,
            **asdict(story.verdict),
            "calls_repeated": story.retries,
            "seconds": round(story.seconds, 1),
            "settle_seconds": round(story.settle_seconds, 1),
            "worker_death_to_hand_back_ms": percentiles(
                [1000 * death.handed_on for death in ended if death.handed_on is not None]
            ),
        },
        options,
    )


if __name__ == "__main__":
    sys.exit(main())
