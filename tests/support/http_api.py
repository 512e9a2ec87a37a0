"""The HTTP server for tests: the real application on a real Redis, and a worker's hands to move requests."""

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image

from app.config import Settings
from app.health import own_url
from app.http.server import server_config
from tests.support.processes import wait_for
from worker.queue.connection import connect
from worker.queue.record import Record
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.work_queue import WorkQueue

MODEL = "tongyi-mai/z-image/turbo/controlnet/lora"
SUBMIT = f"/v1/models/{MODEL}"
DOCUMENTED_INPUT: dict[str, Any] = {
    "prompt": "A lighthouse on a cliff at dusk",
    "image_url": "https://example.com/photo.jpg",
    "loras": [{"path": "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union", "scale": 1}],
}


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()


PNG = _png()


def picture_uri(characters: int = 0) -> str:
    """A data URI of a small PNG, with so many characters of zeros behind its end."""
    data = PNG + bytes(-len(PNG) % 3)
    return "data:image/png;base64," + base64.b64encode(data).decode() + "A" * (characters // 4 * 4)


def in_process(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    """Calls the application without a socket, from `address` and with `token`; the rest is httpx's own."""
    token = options.pop("token", None)
    address = options.pop("address", "127.0.0.1")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 50000)),
        **{"base_url": "http://localhost:8000", "headers": headers} | options,
    )


@contextmanager
def served(app: FastAPI, settings: Settings) -> Iterator[str]:
    """Base URL of the application behind uvicorn, on a free port of the loopback."""
    config = server_config(app, settings.model_copy(update={"port": 0}))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        yield own_url(*server.servers[0].sockets[0].getsockname()[:2], tls=settings.tls_cert is not None)
    finally:
        server.should_exit = True
        thread.join()


class WorkerHands:
    """Does to records what workers do, without making a picture."""

    def __init__(self, settings: Settings) -> None:
        self.client = connect(settings.redis_url or "")
        self.work_queue = WorkQueue(self.client, settings)

    def close(self) -> None:
        self.client.close()

    def generate(self, step: int = 0, total_steps: int = 8) -> tuple[Record, str]:
        """Moves the first waiting request to a GPU worker that has done `step` steps; and its token."""
        token = token_hex(8)
        taken = self.work_queue.next("io", token, "io-1")
        assert taken is not None
        self.work_queue.advance(taken.id, token, "generate", {})
        token = token_hex(8)
        running = self.work_queue.next("gpu", token, "gpu-1")
        assert running is not None
        self.work_queue.beat(running.id, token, step, total_steps)
        return running, token

    def succeed(self, output: dict[str, Any]) -> Record:
        running, token = self.generate(step=8)
        return self.end(running.id, token, output)

    def end(self, request_id: str, token: str, output: dict[str, Any]) -> Record:
        """What `generate` began succeeds."""
        self.work_queue.advance(request_id, token, "finish", {})
        token = token_hex(8)
        finishing = self.work_queue.next("io", token, "io-1")
        assert finishing is not None
        self.work_queue.finish(finishing.id, token, output)
        return finishing

    def fail(self, error_type: str, message: str) -> Record:
        token = token_hex(8)
        taken = self.work_queue.next("io", token, "io-1")
        assert taken is not None
        self.work_queue.fail(taken.id, token, error_type, message)
        return taken

    def register(self, *workers: WorkerInfo) -> None:
        for worker in workers:
            Registry(self.client, 30).say(worker)
