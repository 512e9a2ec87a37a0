"""Worker processes of a test and the API's side of their Redis."""

import base64
import io
import multiprocessing
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import anyio
from PIL import Image

from tests.worker.runtime.worker_process import main
from worker.config import WorkerSettings
from worker.queue import keys
from worker.queue.connection import connect
from worker.queue.record import FINAL_STATES, Record
from worker.queue.registry import WorkerInfo
from worker.queue.requests import RequestStore
from worker.storage import location

MODEL = "tongyi-mai/z-image/turbo/controlnet/lora"
WAIT_SECONDS = 30.0

# Each worker is a process of its own, forked off one that has imported everything already.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.worker.runtime.worker_process"])


def _tiny_picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


IMAGE = _tiny_picture()


class Crew:
    """Starts and ends workers; `close` ends what is left."""

    def __init__(self, redis_url: str, data_dir: Path, lease_seconds: float = 1.5, storage: str = "") -> None:
        self.settings = WorkerSettings(
            _env_file=None,
            data_dir=data_dir,
            redis_url=redis_url,
            model="demo",
            lease_seconds=lease_seconds,
            storage=storage,
        )
        self.requests = RequestStore.connect(self.settings)
        # As an API does when it starts.
        with connect(redis_url) as client:
            client.set(keys.STORAGE, location.publish(self.settings))
        self._processes: list[BaseProcess] = []
        self._log = data_dir / "workers.log"
        data_dir.mkdir(parents=True, exist_ok=True)

    def start(self, kind: str, **env: str) -> BaseProcess:
        settings = {
            "ZTURBO_DATA_DIR": str(self.settings.data_dir),
            "ZTURBO_REDIS_URL": str(self.settings.redis_url),
            "ZTURBO_LEASE_SECONDS": str(self.settings.lease_seconds),
            "ZTURBO_STORAGE": self.settings.storage,
            "ZTURBO_MODEL": "demo",
        }
        process = _PROCESSES.Process(target=main, args=(kind, settings | env, self._log))
        process.start()
        self._processes.append(process)
        return process

    async def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
            process.close()
        await self.requests.close()

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def engine_log(self) -> list[str]:
        path = self.settings.data_dir / "engine.log"
        return path.read_text().splitlines() if path.exists() else []

    def outputs(self) -> list[Path]:
        return [path for path in (self.settings.data_dir / "outputs").rglob("*") if path.is_file()]

    async def submit(self, request_id: str, prompt: str = "a fox", **fields: Any) -> None:
        # The input as the API leaves it: checked, with every default written out.
        body = {
            "prompt": prompt, "image_url": IMAGE, "loras": [], "image_size": "square", "control_scale": 0.9,
            "control_start": 0.0, "control_end": 0.4, "preprocess": "none", "num_inference_steps": 8,
            "seed": 7, "enable_prompt_expansion": False, "output_format": "png",
        }  # fmt: skip
        await self.requests.submit(request_id, MODEL, body | fields, "local", [])

    async def get(self, request_id: str) -> Record:
        record = await self.requests.get(request_id)
        assert record is not None
        return record

    async def until(self, request_id: str, *states: str, seconds: float = WAIT_SECONDS) -> Record:
        """The record, once it is in one of the states (or a final one)."""
        end = time.monotonic() + seconds
        while True:
            record = await self.get(request_id)
            if record.state in states or record.state in FINAL_STATES:
                return record
            assert time.monotonic() < end, f"{request_id} is still {record}\n{self.log()}"
            await anyio.sleep(0.02)

    async def until_step(self, request_id: str) -> Record:
        """The record, once an engine has done a step."""
        end = time.monotonic() + WAIT_SECONDS
        while (record := await self.get(request_id)).step == 0:
            assert time.monotonic() < end, f"{request_id} is still {record}\n{self.log()}"
            await anyio.sleep(0.01)
        return record

    async def workers(self, state: str, count: int = 1) -> list[WorkerInfo]:
        """The workers in that state, once there are so many."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            found = [worker for worker in (await self.requests.stats()).workers if worker.state == state]
            if len(found) >= count:
                return found
            assert time.monotonic() < end, f"too few workers are {state}\n{self.log()}"
            await anyio.sleep(0.05)
