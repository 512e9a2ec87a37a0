"""The compose file, really up: what a caller sees of it, and what Docker says of its containers."""

import base64
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.docker.engine import SITE_PACKAGES, Engine
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT
from tests.support.processes import wait_for

DEMO_WEIGHTS = "/opt/zturbo/lib/python3.11/site-packages/models/demo_weights"
"""Of which the API's image has no more than the API and io workers read."""
READY_SECONDS = 180.0
PICTURE_SECONDS = 120.0


class Stack:
    """One project of the compose file in a copy of the checkout, with the secrets that its head makes."""

    def __init__(self, engine: Engine, checkout: Path, profile: str, site_packages: Path | None) -> None:
        """`site_packages`: what the workers run on in the API's image; None: the worker's own image."""
        self.engine = engine
        self.checkout = checkout
        self._override = checkout / "override.yml"
        self._words = ("compose", "-f", "docker-compose.yml", "-f", "override.yml", "--profile", profile)
        self._override.write_text(_override(checkout, site_packages))
        self.picture = dict(DOCUMENTED_INPUT) | {"image_url": _example(checkout), "loras": []}

    def compose(self, *words: str) -> str:
        return self.engine.docker(*self._words, *words, cwd=self.checkout)

    def try_compose(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.engine.try_docker(*self._words, *words, cwd=self.checkout)

    def up(self) -> None:
        self.compose("up", "--detach", "--no-build")
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_for(self._is_ready, READY_SECONDS)

    def down(self, *words: str) -> None:
        self.compose("down", "--timeout", "60", *words)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).split()

    def kill(self, service: str, signal: str = "KILL") -> None:
        """Every container of the service at once, from outside: Docker starts them again by itself."""
        pids = [str(self.engine.inspect(name)["State"]["Pid"]) for name in self.containers(service)]
        subprocess.run(["kill", f"-{signal}", *pids], check=True)

    @property
    def key(self) -> str:
        return (self.checkout / "secrets/api_keys").read_text().strip().partition(":")[2]

    def client(self, key: str | None = None) -> httpx.Client:
        """For as long as the API's container lives: its port is another after each start."""
        address = self.compose("port", "api", "8000")
        return httpx.Client(
            base_url=f"http://{address}",
            headers={"Authorization": f"Bearer {key or self.key}"},
            timeout=30,
            transport=httpx.HTTPTransport(retries=3),
        )

    def submit(self, count: int) -> list[str]:
        """Ids of so many requests, each of a picture of its own."""
        with self.client() as client:
            return [
                str(
                    client.post(SUBMIT, json=self.picture | {"seed": seed})
                    .raise_for_status()
                    .json()["request_id"]
                )
                for seed in range(count)
            ]

    def results(self, request_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Of each request its result, once it has ended; whatever dies and returns meanwhile."""
        found: dict[str, dict[str, Any]] = {}
        end = time.monotonic() + PICTURE_SECONDS
        waiting = list(request_ids)
        while waiting:
            assert time.monotonic() < end, f"{len(waiting)} requests have not ended: {waiting}"
            try:
                with self.client() as client:
                    for request_id in list(waiting):
                        answer = client.get(f"/v1/requests/{request_id}/result")
                        if answer.status_code == 200 and answer.json()["status"] in TERMINAL:
                            found[request_id] = answer.json()
                            waiting.remove(request_id)
            except (httpx.TransportError, AssertionError):
                pass
            time.sleep(0.2)
        return found

    def file(self, result: dict[str, Any]) -> bytes:
        """The first picture of a result, by the path of its URL: the port may be another by now."""
        url = result["output"]["image"]
        with self.client() as client:
            return client.get(httpx.URL(url).path).raise_for_status().content

    def _is_ready(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/readyz").status_code == 200
        except (httpx.TransportError, AssertionError):
            return False


TERMINAL = ("succeeded", "failed", "cancelled")


def make_secrets(checkout: Path) -> None:
    """By the lines of the compose file's head, under the umask of a careful user."""
    lines = re.findall(
        r"^#   ((?:mkdir|echo|touch|chmod) .*)", (checkout / "docker-compose.yml").read_text(), re.M
    )
    script = "\n".join(("umask 077", *lines))
    subprocess.run(["sh", "-ec", script], cwd=checkout, check=True)


def _override(checkout: Path, site_packages: Path | None) -> str:
    """Nothing but what this machine has not: GPUs, weights, and, in the light way, the worker's image."""
    lines = ["services:", "  redis: {ports: !override []}", '  api: {ports: !override ["127.0.0.1::8000"]}']
    for name, service in yaml.safe_load((checkout / "docker-compose.yml").read_text())["services"].items():
        if service.get("image") != "zturbo-worker":
            continue
        lines += [f"  {name}:", "    deploy: !reset null"]
        if name == "weights":
            lines += ['    command: ["true"]']
        if site_packages:
            lines += [
                "    image: zturbo-api",
                "    build: !reset null",
                '    healthcheck: {test: ["CMD", "python", "-m", "app.health", "worker"], interval: 30s}',
                "    environment:",
                f"      PYTHONPATH: {SITE_PACKAGES}",
                "    volumes:",
                f"      - {site_packages}:{SITE_PACKAGES}:ro",
                f"      - {checkout}/models/demo_weights:{DEMO_WEIGHTS}:ro",
            ]
    return "\n".join([*lines, ""])


def _example(checkout: Path) -> str:
    picture = (checkout / "app/playground/example.jpg").read_bytes()
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
