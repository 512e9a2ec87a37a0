"""What /metrics counts, as Prometheus's own parser reads it; its dashboard and its document."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import worker.queue
from app.config import Settings
from app.metrics import COUNTERS, HISTOGRAMS, exposition
from tests.support.http_api import DOCUMENTED_INPUT, MODEL, SUBMIT, WorkerHands
from worker.queue.keys import BOUNDS
from worker.queue.registry import WorkerInfo
from worker.queue.stats import Stats

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text()
LUA = {path.stem: path.read_text() for path in Path(worker.queue.__path__[0], "lua").glob("*.lua")}

GPU = WorkerInfo(
    *("gpu-1", "gpu", "ready"),
    memory_used=3,
    memory_total=8,
    counts={"oom|free_cache": 2, "fetch|image|fetched": 1, "cache|prompt|hit": 1},
)
EVERYTHING = Stats(
    waiting={"io": 1, "gpu": 0},
    in_line=1,
    running=0,
    finished_last_minute=1,
    generate_seconds=None,
    workers=[GPU],
    counts={
        "submits|queued": 1, "requests|succeeded|": 1, "attempts|generate|released": 1, "webhooks|2xx": 1,
        "stage_seconds|generate": 1500, "doorbells_topped_up": 1, "queue_seconds|0.5": 1,
        "queue_seconds|+Inf": 2, "queue_seconds|sum": 7_300_250,
        "generate_seconds|m|8|5": 1, "generate_seconds|m|8|sum": 4_000, "of a newer version|x": 1,
    },
)  # fmt: skip


def samples(text: str) -> dict[str, float]:
    """`name{label=value,…}` -> value."""
    found: Iterable[Sample] = (
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    )
    return {_written(sample.name, sample.labels): sample.value for sample in found}


def _written(name: str, labels: dict[str, str]) -> str:
    return name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(labels.items())) + "}" if labels else "")


def families() -> dict[str, set[str]]:
    """Every name that a query may use -> its labels."""
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(exposition(EVERYTHING, 9).decode())
        for sample in family.samples
    }


@pytest.mark.anyio
async def test_life_of_each_request_is_counted_once(
    http: httpx.AsyncClient, hands: WorkerHands, settings: Settings
) -> None:
    for _ in range(3):
        await http.post(SUBMIT, json=DOCUMENTED_INPUT)
    hands.succeed({})
    hands.fail("fetch_failed", "image_url: a secret place did not answer.")
    running, token = hands.generate(step=2)
    hands.work_queue.release(running.id, token)
    await http.post(f"/v1/requests/{running.id}/cancel")
    hands.register(GPU)

    text = (await http.get("/metrics")).text

    found = samples(text)
    assert found == found | {
        "zturbo_redis_up": 1,
        "zturbo_requests_in_queue": 0,
        "zturbo_requests_running": 0,
        "zturbo_requests_waiting{kind=io}": 0,
        "zturbo_submits_total{outcome=queued}": 3,
        "zturbo_requests_total{error=,state=succeeded}": 1,
        "zturbo_requests_total{error=fetch_failed,state=failed}": 1,
        "zturbo_requests_total{error=,state=cancelled}": 1,
        "zturbo_attempts_total{reason=released,stage=generate}": 1,
        "zturbo_queue_seconds_count": 2,
        "zturbo_queue_seconds_bucket{le=+Inf}": 2,
        f"zturbo_generate_seconds_count{{model={MODEL},steps=8}}": 1,
        "zturbo_worker_state{kind=gpu,state=ready,worker=gpu-1}": 1,
        "zturbo_gpu_memory_bytes{part=used,worker=gpu-1}": 3,
        "zturbo_oom_total{rung=free_cache,worker=gpu-1}": 2,
        "zturbo_fetch_total{kind=image,outcome=fetched,worker=gpu-1}": 1,
    }
    assert found["zturbo_disk_free_bytes"] > 0
    for said in (DOCUMENTED_INPUT["prompt"], "example.com", "secret"):
        assert said not in text


def test_histogram_buckets_add_up() -> None:
    found = samples(exposition(EVERYTHING, 9).decode())
    buckets = [found[f"zturbo_queue_seconds_bucket{{le={bound:g}}}"] for bound in BOUNDS]
    assert buckets == [0, 0] + [1] * (len(BOUNDS) - 2)
    assert found["zturbo_queue_seconds_bucket{le=+Inf}"] == found["zturbo_queue_seconds_count"] == 3
    assert found["zturbo_queue_seconds_sum"] == 7300.25
    assert found["zturbo_stage_seconds_total{stage=generate}"] == 1.5


def test_scripts_count_what_is_told() -> None:
    source = "\n".join(LUA.values())
    assert set(re.findall(r"\bcount\([^'\n]*?'(\w+)'", source)) - {"sum"} == set(COUNTERS)
    assert set(re.findall(r"\bobserve\([^'\n]*?'(\w+)'", source)) == set(HISTOGRAMS)


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def alerts() -> list[str]:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    rules = [rule["expr"] for group in groups for rule in group["rules"]]
    return [rule for rule in rules if "zturbo_" in rule]


@pytest.mark.parametrize("query", [*queries(), *alerts()])
def test_dashboard_asks_for_metrics_and_labels_that_there_are(query: str) -> None:
    known = families()
    asked = re.findall(r"zturbo_\w+", query)
    assert asked
    assert set(asked) <= set(known)
    labels = {name for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(", ")}
    labels |= set(re.findall(r"(\w+)=~?\"", query))
    for name in asked:
        assert labels <= set.union(*(known[each] for each in asked)), name


def test_dashboard_shows_every_metric() -> None:
    shown = {
        re.sub(r"_bucket$", "", name) for query in queries() for name in re.findall(r"zturbo_\w+", query)
    }
    assert shown == {re.sub(r"_(bucket|sum|count)$", "", name) for name in families()}


def test_dashboard_is_one_that_grafana_takes() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set.union(
                *(families()[name] for name in re.findall(r"zturbo_\w+", target["expr"]))
            )


def test_document_lists_every_metric_with_its_labels() -> None:
    rows = dict(re.findall(r"^\| `(zturbo_\w+)` \| [a-z]+ \| ([^|]*)\|", DOCUMENT, re.MULTILINE))
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows.items()}
    known = {
        re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in families().items()
    }
    assert told == known
