"""Which weights a request needs, and that a worker which holds them takes it first."""

from pathlib import Path
from typing import Any

import pytest
import redis

from models.job import Job, LoraFile
from worker.queue.affinity import NO_WEIGHTS, Weights, needed_by
from worker.queue.requests import RequestStore
from worker.queue.work_queue import WorkQueue

DEFAULT = "someone/Union"
INK, WATER = Weights("", "ink"), Weights("", "water")
OTHER = Weights("someone/Union-2.1", "")


def job(**fields: Any) -> Job:
    return Job(prompt="a fox", width=512, height=512, **fields)


def lora(sha256: str, scale: float = 1.0) -> LoraFile:
    return LoraFile(name="any", path=Path("any"), scale=scale, sha256=sha256)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        (DEFAULT, ""),
        (f"{DEFAULT}/union.safetensors", ""),
        ("someone/Union-2.1/u.safetensors", "someone/Union-2.1/u.safetensors"),
    ],
)
def test_only_a_controlnet_other_than_the_default_is_a_load(name: str, named: str) -> None:
    controlled = {"controlnet": Path("x"), "controlnet_name": name, "control_scale": 0.9}
    assert needed_by(job(**controlled), DEFAULT).controlnet == named
    assert needed_by(job(**controlled | {"control_scale": 0.0}), DEFAULT).controlnet == ""


def test_lora_set_is_known_by_content_and_scale_in_any_order() -> None:
    one = needed_by(job(loras=(lora("a"), lora("b", 0.5))), DEFAULT)
    assert one == needed_by(job(loras=(lora("b", 0.5), lora("a"), lora("c", 0))), DEFAULT)
    assert one != needed_by(job(loras=(lora("a"), lora("b"))), DEFAULT)
    assert needed_by(job(loras=(lora("a", 0),)), DEFAULT) == NO_WEIGHTS


def test_another_controlnet_stays_loaded_while_none_is_needed() -> None:
    assert OTHER.after(INK).after(WATER) == Weights(OTHER.controlnet, "water")


@pytest.fixture
async def prepared(requests: RequestStore, work_queue: WorkQueue) -> list[str]:
    """Requests that wait for a GPU worker, by what they need."""
    needs = {"plain": NO_WEIGHTS, "ink": INK, "other": OTHER, "ink again": INK}
    for number, needed in enumerate(needs.values()):
        await requests.submit(f"r{number}", "model", {}, "local", [])
        work_queue.next("io", f"p{number}", "io")
        work_queue.advance(f"r{number}", f"p{number}", "generate", {}, needed)
    return list(needs)


def order(work_queue: WorkQueue, prepared: list[str], held: Weights) -> list[str]:
    """What a worker takes one after the other."""
    taken = []
    while record := work_queue.next("gpu", f"g{len(taken)}", "gpu", held):
        taken.append(prepared[int(record.id[1:])])
        held = held.after({"plain": NO_WEIGHTS, "other": OTHER}.get(taken[-1], INK))
    return taken


@pytest.mark.anyio
async def test_worker_takes_what_it_holds_the_weights_for(work_queue: WorkQueue, prepared: list[str]) -> None:
    assert order(work_queue, prepared, INK) == ["ink", "ink again", "plain", "other"]


@pytest.mark.anyio
async def test_loras_are_changed_rather_than_a_controlnet(work_queue: WorkQueue, prepared: list[str]) -> None:
    assert order(work_queue, prepared, WATER) == ["plain", "ink", "ink again", "other"]


@pytest.mark.anyio
async def test_nobody_is_passed_over_for_one_that_came_ten_seconds_later(
    work_queue: WorkQueue, prepared: list[str], client: redis.Redis
) -> None:
    for number in (1, 2, 3):
        client.hincrby(f"zturbo:req:r{number}", "created_at", 10_100)
    assert order(work_queue, prepared, INK)[0] == "plain"


@pytest.mark.anyio
async def test_one_that_came_ten_seconds_later_still_goes_first(
    work_queue: WorkQueue, prepared: list[str], client: redis.Redis
) -> None:
    client.hset("zturbo:req:r0", "created_at", 1_000_000)
    for number in (1, 2, 3):
        client.hset(f"zturbo:req:r{number}", "created_at", 1_010_000)
    assert order(work_queue, prepared, INK)[0] == "ink"
