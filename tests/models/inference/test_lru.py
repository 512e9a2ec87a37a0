"""What is kept for the next request, how much of it, and what is counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.inference.control.detectors import Detectors
from models.inference.engine import Engine
from models.inference.lru import LruCache
from models.job import Job, Pixels
from tests.models.inference.test_engine import settings_for, write_lora


def array(kilobytes: int) -> NDArray[np.uint8]:
    return np.zeros(kilobytes * 1000, np.uint8)


def test_what_is_kept_is_not_made_again_and_lookups_are_counted() -> None:
    cache, made = LruCache(10_000), array(1)
    assert cache.get("map", "a", lambda: made) is made
    assert cache.get("map", "a", lambda: array(1)) is made
    assert cache.get("prompt", "a", lambda: array(2)) is not made, "a kind has keys of its own"
    assert cache.lookups == {"map|miss": 1, "map|hit": 1, "prompt|miss": 1}


def test_least_recently_used_goes_when_the_bytes_are_used_up() -> None:
    cache = LruCache(10_000)
    for key in "abc":
        cache.get("map", key, lambda: array(4))
        cache.get("map", "a", lambda: array(4))
    cache.lookups.clear()
    cache.get("map", "a", lambda: array(4))
    cache.get("map", "c", lambda: array(4))
    cache.get("map", "b", lambda: array(4))
    assert cache.lookups == {"map|hit": 2, "map|miss": 1}


def test_what_is_larger_than_all_of_it_is_not_kept_and_drives_nothing_out() -> None:
    cache = LruCache(10_000)
    small = cache.get("map", "small", lambda: array(1))
    assert cache.get("map", "large", lambda: array(11)).nbytes == 11_000
    assert cache.get("map", "small", lambda: array(1)) is small
    assert LruCache(0).get("map", "any", lambda: array(1)).nbytes == 1000


def test_picture_is_the_same_with_and_without_what_is_kept_and_a_lora_makes_no_difference_to_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def depth(self: Any, pixels: Pixels, width: int, height: int) -> Pixels:
        looked.append(width)
        return 255 - pixels

    monkeypatch.setattr(Detectors, "depth", depth)
    job = Job(
        prompt="a red ball",
        width=64,
        height=64,
        num_inference_steps=2,
        preprocess="depth",
        control_scale=0.9,
        controlnet=tiny_model / "controlnet.safetensors",
    )
    other = job.model_copy(update={"prompt": "a blue cube"})
    styled = job.model_copy(update={"loras": (write_lora(tmp_path),)})
    source = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def draw(engine: Engine) -> list[Pixels]:
        jobs = ((job, source), (other, source), (styled, source), (job, source[::-1].copy()), (job, source))
        return [engine.generate(each, control, lambda step: None).images[0] for each, control in jobs]

    keeping = Engine.load(settings_for(tiny_model, tmp_path / "keeping"))
    kept = draw(keeping)
    assert looked == [64, 64], "one look at each picture"
    forgetting = draw(Engine.load(settings_for(tiny_model, tmp_path / "forgetting", reuse_bytes=0)))
    for one, another in zip(kept, forgetting, strict=True):
        assert np.array_equal(one, another)
    assert keeping.counts == {
        **dict.fromkeys(("cache|prompt|miss", "cache|map|miss", "cache|control|miss"), 2),
        **dict.fromkeys(("cache|prompt|hit", "cache|map|hit", "cache|control|hit"), 3),
    }
