"""Prometheus really scrapes the stack, and evaluates each query of the dashboard and each alert's rule."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.docker.engine import ROOT
from tests.docker.stack import Stack
from tests.support.processes import free_port, wait_for

# The first waits for the engine, the base images and ours.
pytestmark = pytest.mark.timeout(900)

ALERTS = ROOT / "deploy/alerts.yml"
QUERIES = [
    target["expr"].replace("$__rate_interval", "1m")
    for panel in json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())["panels"]
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def prometheus(gpu_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Its HTTP interface, when it has scraped a stack that made a picture."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here; apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    gpu_stack.results(gpu_stack.submit(1))
    with gpu_stack.client() as client:
        scraped = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": "zturbo", "static_configs": [{"targets": [client.base_url.netloc.decode()]}]}
            ],
        }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(scraped))
    address = f"127.0.0.1:{free_port()}"
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
    }
    command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://{address}/api/v1") as client:
                wait_for(lambda: _evaluated(client), 60)
                yield client
        finally:
            process.terminate()


def ask(prometheus: httpx.Client, path: str, **parameters: str) -> Any:
    answer = prometheus.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def _evaluated(client: httpx.Client) -> bool:
    try:
        up = ask(client, "/query", query="min_over_time(up[10s]) and count_over_time(up[10s]) > 3")["result"]
        return bool(up) and all(rule["health"] == "ok" for rule in _rules(client))
    except (httpx.TransportError, AssertionError):
        return False


def _rules(client: httpx.Client) -> list[dict[str, Any]]:
    return [rule for group in ask(client, "/rules")["groups"] for rule in group["rules"]]


def test_server_is_scraped_without_a_key(prometheus: httpx.Client) -> None:
    ((_, value),) = (found["value"] for found in ask(prometheus, "/query", query="up")["result"])
    assert value == "1"


@pytest.mark.parametrize("query", QUERIES)
def test_query_of_the_dashboard_is_one_that_prometheus_takes(query: str, prometheus: httpx.Client) -> None:
    ask(prometheus, "/query", query=query)


def test_pictures_are_seen_in_what_the_dashboard_shows(prometheus: httpx.Client) -> None:
    seen = ask(prometheus, "/query", query='sum(zturbo_requests_total{state="succeeded"})')["result"]
    assert float(seen[0]["value"][1]) >= 1


def test_every_alert_is_evaluated_and_none_fires_on_a_sound_server(prometheus: httpx.Client) -> None:
    rules = _rules(prometheus)
    assert {rule["name"] for rule in rules} == {
        rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    }
    assert {rule["name"]: rule["state"] for rule in rules if rule["state"] != "inactive"} == {}


def test_alert_fires_when_no_worker_is_there(
    prometheus: httpx.Client, gpu_stack: Stack, tmp_path: Path
) -> None:
    (expression,) = (rule["query"] for rule in _rules(prometheus) if rule["name"] == "ZturboNoWorker")
    assert ask(prometheus, "/query", query=expression)["result"] == []
    gpu_stack.compose("stop", "gpu-worker")
    wait_for(lambda: ask(prometheus, "/query", query=expression)["result"], 60)
    gpu_stack.compose("start", "gpu-worker")
    gpu_stack.wait_until_ready()
