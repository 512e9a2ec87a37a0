"""Makes an append-only file that holds a request in every state, as the present code writes it.

`python -m tests.worker.queue.stored_aof tests/worker/queue/stored/NAME.aof`, once for each
version of the record, by the last code that writes that version. tests/worker/queue/test_upgrade.py then
proves that newer code reads it.
"""

import asyncio
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx

from app.config import Settings
from app.main import create_app
from models.job import Facts
from tests.support.http_api import SUBMIT, in_process
from tests.support.processes import wait_for
from tests.support.redis_server import RedisServer
from tests.worker.runtime.crew import IMAGE, Crew
from worker.queue.connection import connect
from worker.queue.work_queue import WorkQueue
from worker.storage.pictures import new_file_id

ALONE = "/v1/models/tongyi-mai/z-image/turbo"
"""A model that takes no image, so that a request of it needs no file between its stages."""


async def submit(http: httpx.AsyncClient, path: str, **fields: Any) -> str:
    body = {"prompt": "no image", "image_size": "square", "num_inference_steps": 2} | fields
    answer = await http.post(path, json=body)
    request_id: str = answer.json()["request_id"]
    return request_id


def end(process: BaseProcess) -> None:
    process.kill()
    process.join()


async def make(url: str, data_dir: Path) -> dict[str, str]:
    """Ids of the requests by what became of them."""
    made = {}
    async with AsyncExitStack() as stack:
        crew = Crew(url, data_dir, lease_seconds=30)
        stack.push_async_callback(crew.close)
        app = create_app(Settings(_env_file=None, data_dir=data_dir, redis_url=url))
        stack.push_async_callback(app.state.requests.close)
        http = await stack.enter_async_context(in_process(app))

        io, gpu = crew.start("io"), crew.start("gpu")
        await crew.workers("ready", 2)
        full = {"prompt": "a fox", "image_url": IMAGE, "loras": [], "seed": -1, "output_format": "webp"}
        made["succeeded"] = await submit(http, f"{SUBMIT}?webhook=https://example.com/told", **full)
        made["failed"] = await submit(http, ALONE, prompt="refuse, no image")
        await crew.until(made["succeeded"])
        await crew.until(made["failed"])
        # As the API does after an attempt that failed; the next is due in five seconds.
        attempt = {"at": (await crew.get(made["succeeded"])).finished_at, "status": 500}
        await crew.requests.delivered(made["succeeded"], 1, attempt, 5)
        end(gpu)

        for seed, state in enumerate(("finishing", "running", "prepared")):
            made[state] = await submit(http, ALONE, seed=seed)
        work_queue = WorkQueue(connect(url), crew.settings)
        wait_for(lambda: (record := work_queue.get(made["prepared"])) and record.stage == "generate")
        end(io)
        taken = work_queue.next("gpu", "token", "gpu-1")
        assert taken is not None
        assert taken.id == made["finishing"]
        facts = Facts(model="sleeping", seeds=(0,), prompt="no image").model_dump(mode="json")
        kept = {"image": "token.image.npy", "file_ids": {"image": new_file_id()}}
        work_queue.advance(taken.id, "token", "finish", facts | kept)
        gpu = crew.start("gpu", TEST_STEP_SECONDS="60")
        await crew.until(made["running"], "in_progress")
        end(gpu)

        made["submitted"] = await submit(http, f"{SUBMIT}?webhook=https://example.com/told", **full)
        made["cancelled"] = await submit(http, ALONE, seed=3)
        await crew.requests.cancel(made["cancelled"])
    return made


def main(target: Path) -> None:
    server = RedisServer()
    data_dir = Path(tempfile.mkdtemp())
    try:
        made = asyncio.run(make(server.url, data_dir))
        with connect(server.url) as client:
            client.hset("made", mapping=made)
            # RQ's workers are dead, and their hashes tell of this machine.
            client.delete(*client.keys("rq:worker*"), *client.keys("rq:clean*"))
            client.config_set("aof-use-rdb-preamble", "no")
            client.bgrewriteaof()
            wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        (log,) = server.folder.rglob("*.base.aof")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, target)
    finally:
        server.remove()
        shutil.rmtree(data_dir)
    print(target, target.stat().st_size, made)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
