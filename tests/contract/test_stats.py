"""How busy the server is."""

import httpx
import pytest

from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, WorkerHands
from worker.queue.registry import WorkerInfo

pytestmark = pytest.mark.anyio

GPU = WorkerInfo(
    "gpu-box-1", "gpu", "busy", "z-image-turbo", "cuda", memory_used=20 * 2**30, memory_total=80 * 2**30
)
IO = WorkerInfo("io-box-2", "io", "setup_failed", detail="The data folder cannot be written.")


async def test_stats_tell_queue_workers_memory_and_throughput(
    http: httpx.AsyncClient, hands: WorkerHands
) -> None:
    for _ in range(4):
        await http.post(SUBMIT, json=DOCUMENTED_INPUT)
    hands.succeed({})
    hands.fail("fetch_failed", "image_url: example.com did not answer.")
    hands.generate()
    hands.register(GPU, IO)

    stats = (await http.get("/v1/stats")).json()

    assert stats.pop("generate_seconds") >= 0
    assert stats == {
        "in_line": 1,
        "waiting": {"io": 1, "gpu": 0},
        "running": 1,
        "finished_last_minute": 2,
        "workers": [
            {"id": "io-box-2", "kind": "io", "state": "setup_failed", "detail": IO.detail},
            {
                "id": "gpu-box-1",
                "kind": "gpu",
                "state": "busy",
                "model": "z-image-turbo",
                "device": "cuda",
                "memory_used": 20 * 2**30,
                "memory_total": 80 * 2**30,
            },
        ],
    }
