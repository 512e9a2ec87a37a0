"""How long a worker is dead before its request is somebody else's, when nobody but its lease tells.

    python -m benchmarks.chaos.detection

Workers of another machine are stood in for by what can be seen of them, beats that stop at a random moment;
the scripts, the reaping and Redis are real. A worker on the supervisor's own machine is noticed at once:
benchmarks.chaos measures that. One run is one row of benchmarks/results/detection.jsonl.
"""

import random
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.run import option_parser, percentiles, write_row
from benchmarks.store import running_store
from worker.config import WorkerSettings
from worker.queue.connection import connect
from worker.queue.lease import BEATS_PER_LEASE
from worker.queue.scripts import Scripts, submit
from worker.queue.work_queue import WorkQueue
from worker.runtime.reconciler import TICK_SECONDS


def main() -> None:
    parser = option_parser("chaos.detection", __doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--lease", type=float, default=30.0, help="seconds")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="zturbo-detection-") as folder,
        running_store(Path(folder)) as store,
    ):
        waits = measure(store.url, options.seed, options.workers, options.lease)
    write_row("detection.jsonl", {"death_to_hand_back_s": percentiles(waits)}, options)


def measure(redis_url: str, seed: int, workers: int, lease_seconds: float) -> list[float]:
    """Seconds from each worker's death to the moment when its request can be taken again."""
    settings = WorkerSettings(_env_file=None, lease_seconds=lease_seconds, max_queue=workers)
    chance = random.Random(seed)
    with connect(redis_url) as client:
        work_queue, scripts = WorkQueue(client, settings), Scripts(client)
        stopped = threading.Event()
        reaper = threading.Thread(target=_reap, args=(WorkQueue(connect(redis_url), settings), stopped))
        reaper.start()
        died_at = {}
        for number in range(workers):
            request_id = f"r{number}"
            fields = {"model_id": "m", "input": "{}", "warnings": "[]"}
            scripts.run(submit(id=request_id, owner="local", most=workers, fields=fields))
            work_queue.next("io", f"t{number}", f"io-{number}")
            # Its last beat was some part of the time between two beats before its death.
            died_at[request_id] = time.monotonic() + chance.uniform(0, lease_seconds / BEATS_PER_LEASE)
        waits: dict[str, float] = {}
        while len(waits) < workers:
            for request_id in client.zrange("zturbo:waiting:io", 0, -1):
                waits.setdefault(request_id, time.monotonic() - died_at[str(request_id)])
            time.sleep(0.01)
        stopped.set()
        reaper.join()
    return list(waits.values())


def _reap(work_queue: WorkQueue, stopped: threading.Event) -> None:
    while not stopped.wait(TICK_SECONDS):
        work_queue.reap(TICK_SECONDS)


if __name__ == "__main__":
    main()
