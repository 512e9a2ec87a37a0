"""Whole workers in processes of their own, with a tiny engine: what becomes of requests in their hands."""

import base64
import os
import signal
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import anyio
import pytest
import redis
from PIL import Image

from models.weights import demo
from tests.support.processes import wait_for
from tests.support.redis_server import RedisServer
from tests.worker.runtime.crew import Crew
from worker.encoding.metadata import read_metadata

pytestmark = pytest.mark.anyio

SLOW = {"TEST_STEP_SECONDS": "0.2"}
"""A picture takes 1.6 s: time to do something to its worker."""


async def ended(process: BaseProcess, seconds: float = 15) -> int | None:
    """Its exit code; None when it did not end."""
    await anyio.to_thread.run_sync(process.join, seconds)
    return process.exitcode


def send(process: BaseProcess, number: signal.Signals) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


async def test_request_becomes_a_stored_picture(crew: Crew) -> None:
    crew.start("io")
    crew.start("gpu")
    await crew.submit("a", seed=200, image_size="portrait_4_3")
    record = await crew.until("a")
    assert record.state == "succeeded", record.error
    assert record.output is not None
    (path,) = crew.outputs()
    with Image.open(path) as image:
        assert (image.size, image.getpixel((0, 0)), image.format) == (
            demo.native_size(768, 1024),
            (200, 200, 200),
            "PNG",
        )
    facts = record.output["image"]
    assert path.parts[-2:] == (facts["file_id"], facts["name"])
    assert (facts["width"], facts["height"], facts["size"]) == (
        *demo.native_size(768, 1024),
        path.stat().st_size,
    )
    assert record.output["seed"] == 200
    assert set(record.spent) == {"prepare", "generate", "finish"}
    # Eight steps of 20 ms.
    assert (record.gpu_seconds or 0) >= 0.16
    assert (record.step, record.total_steps) == (8, 8)
    # The record is final first: a reader must not wait for the sweeping.
    wait_for(lambda: not list((crew.settings.data_dir / "work").iterdir()))
    workers = await crew.workers("ready", 2)
    assert {(worker.kind, worker.model) for worker in workers} == {("io", None), ("gpu", "sleeping")}


async def test_expired_request_goes_with_its_prompt_and_its_files(crew: Crew, client: redis.Redis) -> None:
    crew.start("io")
    crew.start("gpu")
    await crew.submit("a", "a map of a secret place")
    assert (await crew.until("a")).state == "succeeded"
    assert len(crew.outputs()) == 2
    # A worker clears away when it starts, and every five minutes.
    crew.start("io", ZTURBO_RETENTION_DAYS="0.0000001")
    end = time.monotonic() + 30
    while await crew.requests.get("a") is not None or crew.outputs():
        assert time.monotonic() < end, crew.log()
        await anyio.sleep(0.05)
    # The prompt stood in the record alone.
    assert client.keys("zturbo:req:*") == []


async def test_worker_tells_what_it_fetched(crew: Crew) -> None:
    crew.start("io")
    await crew.submit("a", image_url="http://127.0.0.1:9/a.png")
    assert (await crew.until("a")).state == "failed"
    end = time.monotonic() + 30
    while (await crew.workers("ready"))[0].counts != {"fetch|image|failed": 1}:
        assert time.monotonic() < end
        await anyio.sleep(0.05)


async def test_control_map_is_kept_beside_the_pictures(crew: Crew) -> None:
    crew.start("io")
    crew.start("gpu")
    await crew.submit("a", "a map", seed=200, num_images=2)
    record = await crew.until("a")
    assert record.output is not None
    kept = {path.name: path for path in crew.outputs()}
    assert set(kept) == {"image-1.png", "image-2.png", "control.png"}
    for place, seed in ((1, 200), (2, 201)):
        with Image.open(kept[f"image-{place}.png"]) as image:
            assert image.getpixel((0, 0)) == (seed, seed, seed)
    control = record.output["control_image"]
    path = kept["control.png"]
    assert path.parts[-2:] == (control["file_id"], control["name"])
    assert control["file_id"] != record.output["image"]["file_id"]
    with Image.open(path) as image:
        assert (image.size, image.getpixel((0, 0))) == (demo.native_size(512, 512), (0, 128, 128))
    assert (control["width"], control["height"]) == demo.native_size(512, 512)


async def test_prompt_alone_becomes_a_picture(crew: Crew) -> None:
    crew.start("io")
    crew.start("gpu")
    body = {
        "prompt": "no image", "image_size": "square", "num_inference_steps": 2, "seed": 7,
        "enable_prompt_expansion": False, "output_format": "png",
    }  # fmt: skip
    await crew.requests.submit("a", "tongyi-mai/z-image/turbo", body, "local", [])
    record = await crew.until("a")
    assert record.output is not None, record.error
    assert (record.output["image"]["width"], "control_image" in record.output) == (
        demo.native_size(512, 512)[0],
        False,
    )
    (path,) = crew.outputs()
    assert read_metadata(path.read_bytes())["zturbo"]["request"] == body


@pytest.mark.parametrize("watched", [True, False])
async def test_preview_is_made_when_somebody_watches(crew: Crew, watched: bool) -> None:
    crew.start("io")
    crew.start("gpu", **SLOW)
    await crew.submit("a")
    if watched:
        await crew.requests.watch("a", 30)
    await crew.until_step("a")
    preview = await crew.requests.preview("a")
    assert (preview is not None and base64.b64decode(preview).startswith(b"\xff\xd8")) == watched
    await crew.until("a")
    assert await crew.requests.preview("a") is None


async def test_failing_requests_tell_why_and_the_next_one_runs(crew: Crew) -> None:
    crew.start("io")
    crew.start("gpu")
    await crew.submit("broken", "explode")
    await crew.submit("refused", "refuse")
    await crew.submit("no-image", image_url="data:image/png;base64,AAAA")
    await crew.submit("fine")
    broken = await crew.until("broken")
    assert broken.error is not None
    assert broken.error["type"] == "internal_error"
    assert "broken" in broken.error["message"]
    assert "secret" not in broken.error["message"]
    refused = await crew.until("refused")
    assert refused.error == {"type": "bad_output", "message": "The picture is all black."}
    no_image = await crew.until("no-image")
    assert no_image.error is not None
    assert no_image.error["message"].startswith("image_url: ")
    assert (await crew.until("fine")).state == "succeeded"
    assert "a secret path" in crew.log(), "the traceback is for the operator"


async def test_killed_gpu_workers_request_is_done_by_another(crew: Crew) -> None:
    crew.start("io")
    killed = crew.start("gpu", **SLOW)
    await crew.submit("a")
    await crew.until_step("a")
    killed.kill()
    crew.start("gpu")
    record = await crew.until("a")
    assert (record.state, record.attempt) == ("succeeded", 1)
    assert crew.engine_log() == ["begin 7", "begin 7", "end 7"]
    assert len(crew.outputs()) == 1


async def test_request_that_kills_its_workers_is_given_up(crew: Crew) -> None:
    crew.start("io")
    await crew.submit("poison", "die")
    await crew.submit("fine", seed=2)
    for _ in range(3):
        assert await ended(crew.start("gpu")) == 1
    record = await crew.until("poison")
    assert record.error is not None
    assert record.error["type"] == "worker_crashed"
    assert "3 times" in record.error["message"]
    crew.start("gpu")
    assert (await crew.until("fine")).state == "succeeded", "the others are unharmed"


@pytest.mark.parametrize(
    ("prompt", "status", "reason"), [("break", 70, "CUDA error"), ("hang", 71, "Nothing was heard")]
)
async def test_worker_that_only_a_new_process_can_replace_ends_and_its_request_is_tried_again(
    crew: Crew, prompt: str, status: int, reason: str
) -> None:
    crew.start("io", ZTURBO_MAX_ATTEMPTS="2")
    await crew.submit("a", prompt)
    await crew.submit("b", "linger", seed=2)
    assert await ended(crew.start("gpu", ZTURBO_STALL_SECONDS="0.5")) == status
    waiting = await crew.until("a", "in_queue")
    assert waiting.state == "in_queue"
    assert await ended(crew.start("gpu", ZTURBO_STALL_SECONDS="0.5")) == status
    record = await crew.until("a")
    assert record.error is not None
    assert record.error["type"] == "worker_crashed"
    crew.start("gpu", ZTURBO_STALL_SECONDS="0.5")
    assert (await crew.until("b")).state == "succeeded", "a slow one is not cut off, nor is it harmed"
    assert crew.engine_log().count("begin 7") == 2
    assert reason in crew.log()


async def test_forced_cancel_frees_the_gpu_between_two_steps(crew: Crew) -> None:
    crew.start("io")
    crew.start("gpu", **SLOW)
    await crew.submit("a", seed=1)
    await crew.submit("b", seed=2)
    await crew.until_step("a")
    assert await crew.requests.cancel("a") == ("not_cancellable", "in_progress")
    assert await crew.requests.cancel("a", force=True) == ("cancelled", "cancelled")
    assert (await crew.until("b")).state == "succeeded"
    assert (await crew.get("a")).state == "cancelled"
    assert crew.engine_log() == ["begin 1", "begin 2", "end 2"]


async def test_stopping_worker_ends_its_picture_and_leaves_the_rest(crew: Crew) -> None:
    crew.start("io")
    gpu = crew.start("gpu", **SLOW)
    await crew.submit("a", seed=1)
    await crew.submit("b", seed=2)
    await crew.until_step("a")
    send(gpu, signal.SIGTERM)
    assert await ended(gpu) == 0
    assert (await crew.until("a")).state == "succeeded"
    waiting = await crew.get("b")
    assert (waiting.state, waiting.position) == ("in_queue", 0)
    assert [worker.kind for worker in (await crew.requests.stats()).workers] == ["io"]
    crew.start("gpu")
    assert (await crew.until("b")).state == "succeeded"
    assert crew.engine_log() == ["begin 1", "end 1", "begin 2", "end 2"]


@pytest.mark.parametrize("signals", [1, 2])
async def test_picture_that_does_not_end_in_time_is_handed_back(crew: Crew, signals: int) -> None:
    crew.start("io")
    gpu = crew.start("gpu", TEST_STEP_SECONDS="600", ZTURBO_DRAIN_SECONDS="0.3" if signals == 1 else "60")
    await crew.submit("a")
    await crew.until("a", "in_progress")
    send(gpu, signal.SIGTERM)
    if signals == 2:
        await anyio.sleep(1.1)
        # One that had only just taken it hands it back at the first.
        with suppress(ProcessLookupError):
            send(gpu, signal.SIGTERM)
    assert await ended(gpu) == 0
    record = await crew.get("a")
    assert (record.state, record.position, record.attempt) == ("in_queue", 0, 0)
    crew.start("gpu")
    assert (await crew.until("a")).state == "succeeded"


async def test_idle_workers_stop_at_once(crew: Crew) -> None:
    processes = [crew.start("io"), crew.start("gpu")]
    await crew.workers("ready", 2)
    await anyio.sleep(0.3)
    started = time.monotonic()
    for process in processes:
        send(process, signal.SIGINT)
    assert [await ended(process) for process in processes] == [0, 0]
    assert time.monotonic() - started < 10
    assert (await crew.requests.stats()).workers == []


async def test_model_that_cannot_be_loaded_is_told(crew: Crew) -> None:
    crew.start("gpu", ZTURBO_DEVICE="cuda")
    (worker,) = await crew.workers("setup_failed")
    assert worker.detail == "There is no such weight; run `zturbo pull`."


@pytest.mark.parametrize("outage", [0.3, 3.0])
async def test_redis_that_dies_and_returns_costs_no_work(
    redis_server: RedisServer, tmp_path: Path, outage: float
) -> None:
    crew = Crew(redis_server.url, tmp_path / "data")
    try:
        crew.start("io")
        crew.start("gpu", **SLOW)
        await crew.submit("a", seed=1)
        await crew.submit("b", seed=2)
        await crew.until_step("a")
        redis_server.kill()
        await anyio.sleep(outage)
        await anyio.to_thread.run_sync(redis_server.start)
        assert (await crew.until("a")).state == "succeeded"
        assert (await crew.until("b")).state == "succeeded"
        assert crew.engine_log() == ["begin 1", "end 1", "begin 2", "end 2"]
        assert len(crew.outputs()) == 2
    finally:
        await crew.close()


async def test_nothing_is_lost_or_seen_twice_while_workers_die(crew: Crew) -> None:
    crew.start("io")
    victims = [crew.start("gpu"), crew.start("gpu"), crew.start("io")]
    ids = [f"r{number}" for number in range(40)]
    for number, request_id in enumerate(ids):
        await crew.submit(request_id, seed=number, num_inference_steps=4)
    for victim, kind in zip(victims, ("gpu", "gpu", "io"), strict=True):
        await anyio.sleep(0.7)
        victim.kill()
        crew.start(kind)
    records = [await crew.until(request_id, seconds=60) for request_id in ids]
    assert [record.state for record in records] == ["succeeded"] * len(ids)
    seen = {record.output["image"]["file_id"] for record in records if record.output}
    assert len(seen) == len(ids)
    for number, record in enumerate(records):
        assert record.output is not None
        assert record.output["seed"] == number
