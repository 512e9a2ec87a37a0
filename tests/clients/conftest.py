"""A server on a socket, for clients that know nothing of tests, and a worker that takes what they submit."""

import threading
import time
from collections.abc import Iterator

import pytest

from app.config import Settings
from app.main import create_app
from tests.app.conftest import hands, settings
from tests.support.http_api import WorkerHands, served

__all__ = ["hands", "settings"]

OUTPUT = {
    "image": {
        "file_id": "0" * 32, "name": "image.png", "content_type": "image/png",
        "width": 512, "height": 512, "size": 3,
    },
    "seed": 7, "prompt": "a fox", "timings": {"denoise": 0.5},
}  # fmt: skip


@pytest.fixture
def base(settings: Settings) -> Iterator[str]:
    with served(create_app(settings), settings) as base:
        yield base


class Work:
    """Takes what waits, some steps a request, until the test is over."""

    def __init__(self, hands: WorkerHands) -> None:
        self._hands = hands
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            if self._hands.client.zcard("zturbo:waiting:io"):
                running, token = self._hands.generate(step=1)
                time.sleep(0.3)
                self._hands.end(running.id, token, OUTPUT)
            time.sleep(0.05)

    def close(self) -> None:
        self._over = True
        self._thread.join()


@pytest.fixture
def work(hands: WorkerHands) -> Iterator[Work]:
    work = Work(hands)
    yield work
    work.close()
