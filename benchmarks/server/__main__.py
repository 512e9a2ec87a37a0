"""What the server holds, and what it adds to the pictures, with an engine that sleeps.

    python -m benchmarks.server --check

Redis, the API, its workers and the callers share this machine's cores. One run is one row of
benchmarks/results/server.jsonl; with `--check` the exit status is 1 when a figure misses its goal.
"""

import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from benchmarks.run import option_parser, write_row
from benchmarks.server.costs import measure_costs
from benchmarks.server.flow import measure_flow
from benchmarks.server.load import measure_load
from benchmarks.store import running_store
from worker.host.embedded_redis import Fsync

GOALS: dict[tuple[str, ...], float] = {
    ("flow", "times_the_pictures"): 1.05,
    ("flow", "gap_ms", "p50"): 10,
    ("flow", "last_step_to_result_ms", "p50"): 150,
    ("load", "submit_cost", "ratio"): 2,
    ("costs", "png_ms"): 80,
    ("costs", "png_size_to_pillow"): 1.15,
    ("costs", "api_import_s"): 1,
    ("costs", "api_import_mb"): 150,
    ("costs", "canny_ms"): 1000,
    ("costs", "preview_of_a_step"): 0.02,
}
"""At most."""


def main() -> int:
    parser = option_parser("server", __doc__, check="when a figure misses its goal")
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--pollers", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--appendfsync", choices=get_args(Fsync), default="always")
    options = parser.parse_args()
    _allow_many_connections()
    figures: dict[str, Any] = {"costs": measure_costs()}
    with _empty_server(options.appendfsync) as (url, folder):
        figures["flow"] = measure_flow(url, folder)
    with _empty_server(options.appendfsync) as (url, folder):
        figures["load"] = measure_load(url, folder, options.queued, options.pollers, options.streams)
    missed = [
        f"{'.'.join(path)} is {value}, at most {most} is the goal"
        for path, most in GOALS.items()
        if (value := _at(figures, path)) > most
    ]
    write_row("server.jsonl", figures, options)
    print("\n".join(missed) or "every goal met")
    return int(options.check and bool(missed))


@contextmanager
def _empty_server(appendfsync: Fsync) -> Iterator[tuple[str, Path]]:
    """URL of a Redis and a data folder."""
    with (
        tempfile.TemporaryDirectory(prefix="zturbo-load-") as folder,
        running_store(Path(folder), appendfsync) as store,
    ):
        yield store.url, Path(folder)


def _allow_many_connections() -> None:
    """Also to the processes that are started from here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _at(figures: Any, path: tuple[str, ...]) -> float:
    for name in path:
        figures = figures[name]
    value: float = figures
    return value


if __name__ == "__main__":
    sys.exit(main())
