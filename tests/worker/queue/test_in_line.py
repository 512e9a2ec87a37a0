"""What the caches of a machine keep, whatever their quota: the files of requests that are not over."""

import pytest

from tests.worker.runtime.crew import MODEL
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue

pytestmark = pytest.mark.anyio


async def test_files_of_a_request_are_in_line_from_its_submit_until_its_end(
    sides: tuple[RequestStore, WorkQueue],
) -> None:
    requests, work_queue = sides
    body = {"prompt": "a fox", "loras": [{"path": "https://a.test/x", "scale": 1}]}
    assert work_queue.in_line() == set()
    await requests.submit("a", MODEL, body, "local", [])
    assert work_queue.in_line() == {"https://a.test/x"}
    assert work_queue.next("io", "t1", "w")
    lora = {"path": "/cache/files/abc.safetensors", "sha256": "abc"}
    job = {"loras": [lora], "controlnet": "/cache/files/def.safetensors"}
    work_queue.advance("a", "t1", "generate", {"job": job, "sent": {"/elsewhere/x": "123"}})
    needed = {"https://a.test/x", *lora.values(), job["controlnet"], "def", "123"}
    assert work_queue.in_line() == needed
    assert work_queue.next("gpu", "t2", "w")
    assert work_queue.in_line() == needed
    work_queue.fail("a", "t2", "out_of_memory", "No.")
    assert work_queue.in_line() == set()
