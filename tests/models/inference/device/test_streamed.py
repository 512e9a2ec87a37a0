"""A model that a GPU has no room for: its weights stream, and its pictures are those of a resident one."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import Cancelled
from models.inference.device.placement import Placement
from models.inference.engine import Engine
from models.job import Job, Pixels
from tests.models.inference.test_engine import difference, generate, settings_for, write_lora

SIZE = 128
CONTROL: Pixels = np.full((SIZE, SIZE, 3), 90, np.uint8)


@pytest.fixture
def job(tiny_model: Path) -> Job:
    return Job(
        prompt="a red ball", width=SIZE, height=SIZE, num_inference_steps=3, seed=1, control_scale=0.9,
        control_end=0.7, controlnet=tiny_model / "controlnet.safetensors", controlnet_name="its own",
    )  # fmt: skip


def streamed(model: Path, folder: Path, held_bytes: int | None, monkeypatch: pytest.MonkeyPatch) -> Engine:
    placement = Placement("cpu", "float32", "streamed", held_bytes=held_bytes)
    monkeypatch.setattr("models.inference.device.loaded_model.plan", lambda *_: placement)
    engine = Engine.load(settings_for(model, folder))
    monkeypatch.undo()
    return engine


@pytest.mark.parametrize("held_bytes", [0, 300_000, None])
def test_streamed_model_makes_the_picture_of_a_resident_one_and_a_lora_comes_and_goes(
    held_bytes: int | None, job: Job, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = streamed(tiny_model, tmp_path, held_bytes, monkeypatch)
    resident = Engine.load(settings_for(tiny_model, tmp_path))
    plain, made = (generate(each, job, CONTROL) for each in (resident, engine))
    # Mapped weights begin elsewhere in memory, which a processor's kernels sum in another order.
    assert difference(made, plain) < 0.01
    styled = job.model_copy(update={"loras": (write_lora(tmp_path),), "seed_variance": 0.2})
    with_lora = generate(engine, styled, CONTROL)
    assert difference(with_lora, generate(resident, styled, CONTROL)) < 0.01
    assert difference(with_lora, plain) > 1
    assert np.array_equal(generate(engine, job, CONTROL).images[0], made.images[0])


def test_streamed_picture_that_is_stopped_between_two_layers_leaves_the_next_right(
    job: Job, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, calls = streamed(tiny_model, tmp_path, 0, monkeypatch), [0]
    expected = generate(engine, job, CONTROL).images[0]

    def stop() -> None:
        calls[0] += 1
        if calls[0] == 200:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        engine.generate(job, CONTROL, lambda step: None, keep_going=stop)
    assert np.array_equal(generate(engine, job, CONTROL).images[0], expected)
