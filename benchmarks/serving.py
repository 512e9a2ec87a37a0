"""Requests a second and seconds a request, over HTTP, through every stage: what the server adds to the model.

The demo model is small enough that the stages around it weigh as much as it does.

    python -m benchmarks.serving [REQUESTS] [AT_ONCE]
"""

import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.client import Client
from benchmarks.rows import write_row
from examples.demo import MODEL_ID, example_body, serving

RESULTS = "serving.jsonl"
WARM_UP = 2
REQUEST_SECONDS = 300.0


def seconds_of_one(client: Client, seed: int) -> float:
    """From submit to result, as a client that polls ten times a second sees it."""
    begun = time.monotonic()
    request_id = client.submit(MODEL_ID, example_body() | {"seed": seed})["request_id"]
    result = client.wait(request_id, timeout=REQUEST_SECONDS, interval=0.1)
    if result["status"] != "succeeded":
        raise RuntimeError(f"request {request_id}: {result}")
    return time.monotonic() - begun


def measure(url: str, requests: int, at_once: int) -> dict[str, float]:
    with Client(url) as client, ThreadPoolExecutor(at_once) as pool:
        for seed in range(WARM_UP):
            seconds_of_one(client, seed)
        begun = time.monotonic()
        each = sorted(pool.map(lambda seed: seconds_of_one(client, seed), range(requests)))
        total = time.monotonic() - begun
    return {
        "requests_per_second": round(requests / total, 3),
        "seconds_p50": round(statistics.median(each), 3),
        "seconds_max": round(each[-1], 3),
    }


def main(requests: int = 20, at_once: int = 4) -> None:
    with tempfile.TemporaryDirectory(prefix="zturbo-bench-") as folder:
        data_dir = Path(folder) / "data"
        with serving(data_dir, Path(folder) / "server.log") as url:
            measured = measure(url, requests, at_once)
    write_row(RESULTS, {"model": "demo", "requests": requests, "at_once": at_once, **measured})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
