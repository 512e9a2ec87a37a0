"""What /metrics tells: gauges as they are in Redis at this moment, and what the scripts and workers counted.

The free disk alone is this machine's: where API and workers share DATA_DIR, it is theirs too.

Nothing is kept in this process, so any API process may be asked. No label holds a prompt, a URL or a key.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from worker.queue import keys
from worker.queue.stats import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counted(NamedTuple):
    """A family that the scripts or the workers count under its name without `zturbo_` and `_total`."""

    help: str
    labels: tuple[str, ...] = ()
    unit: float = 1


COUNTERS = {
    "submits": Counted(
        "Submits, by whether the request was queued, else the limit that refused it.", ("outcome",)
    ),
    "requests": Counted("Requests that came to an end, by how and why they failed.", ("state", "error")),
    "attempts": Counted("Attempts at a stage that came to nothing, by what ended them.", ("stage", "reason")),
    "stage_seconds": Counted("Time that requests were in a worker's hands, by stage.", ("stage",), 0.001),
    "webhooks": Counted("Attempts to send a webhook, by the class of the answer.", ("outcome",)),
    "doorbells_topped_up": Counted("Bells that were missing and were rung by a reconciler."),
}
WORKERS_COUNTERS = {
    "fetch": Counted("Fetches of callers' URLs, by what was fetched.", ("worker", "kind", "outcome")),
    "cache": Counted("Look-ups of what is kept for requests that come again.", ("worker", "kind", "outcome")),
    "oom": Counted("Times a GPU's memory ran out, by what was done about it.", ("worker", "rung")),
}
HISTOGRAMS = {
    "queue_seconds": Counted("From the submit until a GPU worker took the request."),
    "generate_seconds": Counted("A GPU worker's part of a picture.", ("model", "steps")),
}


class _Families(Collector):
    def __init__(self, stats: Stats | None, disk_free: int) -> None:
        self._stats = stats
        self._disk_free = disk_free

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("zturbo_redis_up", "Whether Redis answers.", self._stats is not None)
        yield GaugeMetricFamily("zturbo_disk_free_bytes", "Free where DATA_DIR is.", self._disk_free)
        if self._stats is not None:
            yield from _gauges(self._stats)
            yield from _counters(COUNTERS, self._stats.counts)
            yield from _counters(WORKERS_COUNTERS, _by_worker(self._stats))
            yield from _histograms(self._stats.counts)


def exposition(stats: Stats | None, disk_free: int) -> bytes:
    """The text that Prometheus reads. `stats`: None while Redis does not answer; `disk_free`: bytes."""
    return generate_latest(_Families(stats, disk_free))


def _gauges(stats: Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "zturbo_requests_in_queue", "Requests not yet taken by a GPU worker.", stats.in_line
    )
    yield GaugeMetricFamily("zturbo_requests_running", "Requests in a worker's hands.", stats.running)
    waiting = GaugeMetricFamily(
        "zturbo_requests_waiting", "Requests that wait for a worker, by its kind.", labels=["kind"]
    )
    for kind, count in stats.waiting.items():
        waiting.add_metric([kind], count)
    states = GaugeMetricFamily(
        "zturbo_worker_state", "1 for each worker and its state.", labels=["worker", "kind", "state"]
    )
    memory = GaugeMetricFamily(
        "zturbo_gpu_memory_bytes", "Memory of a worker's GPU: used and total.", labels=["worker", "part"]
    )
    paths = GaugeMetricFamily(
        "zturbo_worker_fast_path", "1 for each GPU worker and how its model runs.", labels=["worker", "path"]
    )
    for worker in stats.workers:
        states.add_metric([worker.id, worker.kind, worker.state], 1)
        if worker.fast_path:
            paths.add_metric([worker.id, worker.fast_path], 1)
        for part, size in (("used", worker.memory_used), ("total", worker.memory_total)):
            if size is not None:
                memory.add_metric([worker.id, part], size)
    yield from (waiting, states, memory, paths)


def _by_worker(stats: Stats) -> dict[str, int]:
    """What each worker counted, its id among the labels."""
    counts = {}
    for worker in stats.workers:
        for key, count in worker.counts.items():
            name, *labels = key.split("|")
            counts["|".join((name, worker.id, *labels))] = count
    return counts


def _counters(families: Mapping[str, Counted], counts: Mapping[str, int]) -> Iterator[Metric]:
    for name, (help_text, labels, unit) in families.items():
        family = CounterMetricFamily(f"zturbo_{name}", help_text, labels=labels)
        for values, count in _counted(name, counts):
            family.add_metric(values, count * unit)
        yield family


def _histograms(counts: Mapping[str, int]) -> Iterator[Metric]:
    for name, (help_text, labels, _) in HISTOGRAMS.items():
        family = HistogramMetricFamily(f"zturbo_{name}", help_text, labels=labels)
        series: defaultdict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
        for (*values, bound), count in _counted(name, counts):
            series[tuple(values)][bound] = count
        for labelled, found in series.items():
            so_far, buckets = 0, []
            for bound in (*(f"{bound:g}" for bound in keys.BOUNDS), "+Inf"):
                so_far += found.get(bound, 0)
                buckets.append((bound, so_far))
            family.add_metric(labelled, buckets, found["sum"] / 1000)
        yield family


def _counted(name: str, counts: Mapping[str, int]) -> Iterator[tuple[list[str], int]]:
    """The values of the labels of each series of `name`, and its count."""
    for key, count in counts.items():
        counted, *values = key.split("|")
        if counted == name:
            yield values, count
