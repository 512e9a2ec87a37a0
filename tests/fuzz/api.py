"""Schemathesis against a whole server: by its OpenAPI document, with a key and without one."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "a-key-for-this-run"
START_SECONDS = 240.0
STOP_SECONDS = 60.0
ANSWER_SECONDS = 60

NOT_PROMISED = "positive_data_acceptance,unsupported_method,allow_header_conformance"
"""A schema cannot tell which URLs, paths and pictures are good, so what fits it may be a 422. And the path
of the categories is, to whoever posts there, a model's id."""

CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
"""
"""503 is documented: Redis or every GPU worker is busy or away. So is 504: a call that waited for a picture
waits no more. No other 5xx may be answered."""


def call_everything(examples: int, seed: int) -> dict[str, Any]:
    """What each of the two runs called and found."""
    with tempfile.TemporaryDirectory(prefix="zturbo-fuzz-") as folder, _served(Path(folder)) as url:
        header = ["--header", f"Authorization: Bearer {KEY}"]
        return {
            "calls_with_key": _run(url, Path(folder), examples, seed, *header),
            "calls_without_key": _run(url, Path(folder), examples, seed),
        }


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "app", "serve", "--model", "demo", "--port", "0"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ZTURBO_")}
    env = {"ZTURBO_API_KEYS": f"ann:{KEY}", "ZTURBO_DATA_DIR": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    log = folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=clean | env, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_SECONDS
        while not (ready := [line for line in log.read_text().splitlines() if line.startswith("ready: ")]):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The server did not start:\n{log.read_text()}")
            time.sleep(0.2)
        yield ready[0].removeprefix("ready: ")
    finally:
        server.terminate()
        server.wait(STOP_SECONDS)


def _run(url: str, folder: Path, examples: int, seed: int, *options: str) -> dict[str, Any]:
    report, config = folder / "report.json", folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [
        *(
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(config),
            "run",
            f"{url}/openapi.json",
        ),
        *("--checks", "all", "--exclude-checks", NOT_PROMISED),
        *("--max-examples", str(examples), "--seed", str(seed), "--request-timeout", str(ANSWER_SECONDS)),
        # A submit that asks to wait is held so long.
        *("--max-response-time", str(ANSWER_SECONDS)),
        *("--suppress-health-check", "all", "--generation-database", "none", "--no-color"),
        *("--report", "json", "--report-json-path", str(report), *options),
    ]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not report.exists():
        raise RuntimeError(f"Schemathesis did not run:\n{done.stdout}")
    said = json.loads(report.read_text())
    found = [f"{each['code']} {each['title']}: {each['operations']}" for each in said["failures"]]
    if found:
        print(done.stdout)
    return {
        "schemathesis": said["schemathesis_version"],
        "operations": said["operations"]["tested"],
        "calls": said["test_cases"]["generated"],
        "seconds": round(said["running_time"], 1),
        "found": found + [each["title"] for each in said["errors"]],
    }
