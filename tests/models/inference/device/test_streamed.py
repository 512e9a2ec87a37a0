"""A model that a GPU has no room for: its weights stream, and its pictures are those of a resident one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import Cancelled
from models.inference.denoise.rounding import EightBits
from models.inference.device.placement import Dtype, Placement
from models.inference.device.ring import Ring
from models.inference.engine import Engine
from models.job import Generated, Job, LoraFile, Pixels
from tests.models.inference.lora.lora_files import write
from tests.models.inference.test_engine import difference, generate, settings_for, write_lora

SIZE = 128
CONTROL: Pixels = np.full((SIZE, SIZE, 3), 90, np.uint8)


@pytest.fixture
def job(tiny_model: Path) -> Job:
    return Job(
        prompt="a red ball", width=SIZE, height=SIZE, num_inference_steps=3, seed=1, control_scale=0.9,
        control_end=0.7, controlnet=tiny_model / "controlnet.safetensors", controlnet_name="its own",
    )  # fmt: skip


def placed(model: Path, folder: Path, placement: Placement) -> Engine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.inference.device.loaded_model.plan", lambda *_: placement)
        return Engine.load(settings_for(model, folder))


def streamed(model: Path, folder: Path, held_bytes: int | None) -> Engine:
    return placed(model, folder, Placement("cpu", "float32", "streamed", held_bytes=held_bytes))


@pytest.mark.parametrize("held_bytes", [0, 300_000, None])
def test_streamed_model_makes_the_picture_of_a_resident_one_and_a_lora_comes_and_goes(
    held_bytes: int | None, job: Job, tiny_model: Path, tmp_path: Path
) -> None:
    engine = streamed(tiny_model, tmp_path, held_bytes)
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
    job: Job, tiny_model: Path, tmp_path: Path
) -> None:
    engine, calls = streamed(tiny_model, tmp_path, 0), [0]
    expected = generate(engine, job, CONTROL).images[0]

    def stop() -> None:
        calls[0] += 1
        if calls[0] == 200:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        engine.generate(job, CONTROL, lambda step: None, keep_going=stop)
    assert np.array_equal(generate(engine, job, CONTROL).images[0], expected)


def write_lokr(folder: Path) -> LoraFile:
    """It changes weights of every layer: as a Kronecker product, by factors, and a norm's in place."""
    random = torch.Generator().manual_seed(6)
    shapes = {
        "attention.to_v.lokr_w1": (4, 4), "attention.to_v.lokr_w2": (16, 16), "attention.norm_q.diff": (64,),
        "feed_forward.w2.lora_A.weight": (4, 170), "feed_forward.w2.lora_B.weight": (64, 4),
    }  # fmt: skip
    tensors = {
        f"diffusion_model.layers.{layer}.{name}": torch.randn(shape, generator=random) * 0.5
        for layer in range(4)
        for name, shape in shapes.items()
    }
    return write(folder / "lokr.safetensors", tensors)


@pytest.mark.parametrize(
    ("dtype", "eight_bits"),
    [("bfloat16", None), ("float16", None), ("float32", "int8"), ("float32", "fp8")],
    ids=["bfloat16", "float16", "int8", "fp8"],
)
def test_changed_weights_come_and_go_as_blocks_are_held_and_let_go_between_pictures_of_two_sizes(
    dtype: Dtype,
    eight_bits: EightBits | None,
    half_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resident = placed(half_model, tmp_path, Placement("cpu", dtype, "resident", eight_bits=eight_bits))
    engine = placed(
        half_model, tmp_path, Placement("cpu", dtype, "streamed", eight_bits=eight_bits, held_bytes=0)
    )
    weights = list(engine._model.transformer.parameters())
    at_home = [weight.data_ptr() for weight in weights]
    # All blocks have room beside a small picture, and some beside a large one.
    monkeypatch.setattr(
        "models.inference.device.loaded_model.held_for",
        lambda placement, width, vae_width, pixels, pictures: 10**9 if pixels == 64 * 64 else 200_000,
    )
    sets = {"plain": (), "lokr": (write_lokr(tmp_path),), "lora": (write_lora(tmp_path),)}
    known: dict[tuple[str, int], Generated] = {}
    for name, size in (
        ("lokr", 64), ("lokr", 128), ("plain", 64), ("plain", 128), ("lokr", 128), ("lokr", 64),
        ("lora", 64), ("lokr", 64), ("lora", 128), ("plain", 64), ("lokr", 128), ("plain", 128),
    ):  # fmt: skip
        job = Job(
            prompt="a red ball", width=size, height=size, num_inference_steps=1, seed=1, loras=sets[name]
        )
        if (name, size) not in known:
            known[name, size] = generate(resident, job)
        made = generate(engine, job)
        # In bfloat16 factors that are merged are rounded with the weight.
        assert difference(made, known[name, size]) < 1, (name, size)
    assert difference(known["lokr", 128], known["plain", 128]) > 10
    monkeypatch.undo()
    generate(engine, job)
    assert [weight.data_ptr() for weight in weights] == at_home, "and none has memory of its own any more"


def test_text_encoder_that_writes_has_the_place_of_blocks_until_it_is_done(
    job: Job, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.text_encoder.MAX_NEW_TOKENS", 20)
    streaming, engine = (streamed(tiny_model, tmp_path, held_bytes) for held_bytes in (0, 700_000))
    expected, held = generate(engine, job, CONTROL).images[0], engine._model._ring._held
    before, copied, fill = set(held), list[nn.Module](), Ring._fill

    def fill_and_tell(ring: Ring, slot: Any, block: nn.Module) -> None:
        copied.append(block)
        fill(ring, slot, block)

    monkeypatch.setattr(Ring, "_fill", fill_and_tell)
    written = engine.expand(job.prompt, 1)
    assert copied == []
    assert set(held) < before, "some blocks could stay"
    assert len(held) == 1
    assert np.array_equal(generate(engine, job, CONTROL).images[0], expected)
    assert set(held) == before
    copied.clear()
    assert streaming.expand(job.prompt, 1) == written
    # Where nothing has room: each of the three layers for each token.
    assert len(copied) >= 3 * 20
