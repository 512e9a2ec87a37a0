"""A device that runs out of memory, or fails for good, in the middle of a picture."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from models.config import ModelSettings
from models.errors import DeviceBroken, OutOfMemory
from models.inference.denoise.pipeline import denoise
from models.inference.device.out_of_memory import fit_batch, is_out_of_memory
from models.inference.device.placement import Placement, smaller
from models.inference.engine import Engine
from models.job import Job, Pixels

DENOISE = "models.inference.engine.denoise"
JOB = Job(prompt="a red ball", width=128, height=128, num_inference_steps=2, seed=1)


@pytest.fixture
def engine(tiny_model: Path, tmp_path: Path) -> Engine:
    own = tiny_model / "controlnet.safetensors"
    return Engine.load(
        ModelSettings(
            data_dir=tmp_path, model=str(tiny_model), controlnet=str(own), device="cpu", _env_file=None
        )
    )


def picture(engine: Engine) -> Pixels:
    return engine.generate(JOB, None, lambda step: None).images[0]


def failing(times: int, error: Exception, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work` that fails so many times before it works."""
    left = [error] * times

    def attempt(*args: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return work(*args, **options)

    return attempt


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_freed_cache_is_tried_first_and_changes_nothing_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = picture(engine)
    monkeypatch.setattr(AutoencoderKL, "decode", failing(1, out_of_memory(), AutoencoderKL.decode))
    again = engine.generate(JOB, None, lambda step: None)
    np.testing.assert_array_equal(again.images[0], expected)
    assert again.facts.warnings == ()


@pytest.mark.parametrize("pictures", [1, 2])
def test_what_the_failed_try_held_is_free_before_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, pictures: int
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work(_: int) -> None:
        assert all(tensor() is None for tensor in held)
        if len(held) == 2:
            return
        plain = torch.zeros(1)
        reaches_itself = torch.zeros(1)
        reaches_itself.itself = reaches_itself
        held.extend(weakref.ref(tensor) for tensor in (plain, reaches_itself))
        raise out_of_memory()

    gc.disable()
    try:
        fit_batch(engine._model, "It does not fit.", pictures, work)
    finally:
        gc.enable()
    assert len(held) == 2


def test_then_the_picture_is_decoded_in_tiles_without_denoising_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(AutoencoderKL, "decode", failing(2, out_of_memory(), AutoencoderKL.decode))
    tiled = engine.generate(JOB, None, lambda step: steps.append(step.step))
    assert steps == [1, 2]
    assert "decoding in tiles" in tiled.facts.warnings[0]
    assert picture(engine).any()


def test_batch_is_split_before_anything_is_given_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    three = JOB.model_copy(update={"num_images": 3})
    expected = engine.generate(three, None, lambda step: None)
    sizes: list[int] = []

    def small(transformer: Any, conditioning: Any, latents: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(latents))
        if len(latents) > 2:
            raise out_of_memory()
        return denoise(transformer, conditioning, latents, *rest)

    monkeypatch.setattr(DENOISE, small)
    steps: list[tuple[int, int]] = []
    split = engine.generate(three, None, lambda step: steps.append(step[:2]))
    assert sizes == [3, 2, 1]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (split.facts.seeds, split.facts.warnings) == (expected.facts.seeds, ())
    for one, other in zip(split.images, expected.images, strict=True):
        np.testing.assert_allclose(one.astype(int), other, atol=1)


def test_then_the_weights_move_out_and_the_picture_stays_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine._model.shrink()
    expected = picture(engine)
    # On a CPU there is nothing to gain by it, so the GPU's ladder is asked for.
    monkeypatch.setattr("models.inference.device.loaded_model.smaller", _as_on_a_gpu)
    for mode in ("text-encoder-offload", "model-offload", "block-offload"):
        with monkeypatch.context() as short:
            # The freed cache does not help either.
            short.setattr(DENOISE, failing(2, out_of_memory(), denoise))
            made = engine.generate(JOB, None, lambda step: None)
        assert mode in made.facts.warnings[0]
        np.testing.assert_array_equal(made.images[0], expected)
        np.testing.assert_array_equal(picture(engine), expected)


def test_below_the_last_rung_it_is_an_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.inference.device.loaded_model.smaller", _as_on_a_gpu)
    monkeypatch.setattr(DENOISE, failing(9, out_of_memory(), denoise))
    with pytest.raises(OutOfMemory, match="128x128"):
        picture(engine)
    modes = ("text-encoder-offload", "model-offload", "block-offload")
    rungs = {key.split("|")[1]: times for key, times in engine.counts.items() if key.startswith("oom|")}
    assert rungs == dict.fromkeys(("free_cache", "tiled_decode", *modes, "give_up"), 1)


def test_rung_that_fails_half_way_asks_for_a_new_process(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine._model.shrink()
    monkeypatch.setattr("models.inference.device.loaded_model.smaller", _as_on_a_gpu)
    before = engine._model.placement
    monkeypatch.setattr(DENOISE, failing(2, out_of_memory(), denoise))
    no_host_memory = failing(1, RuntimeError("cannot pin 4 GB"), torch.nn.Module.to)
    monkeypatch.setattr(torch.nn.Module, "to", no_host_memory)
    with pytest.raises(DeviceBroken, match="cannot pin 4 GB"):
        picture(engine)
    assert engine._model.placement == before


def _as_on_a_gpu(placement: Placement) -> Placement | None:
    below = smaller(Placement("cuda", placement.dtype, placement.mode, placement.tiled_vae))
    return below and Placement(placement.device, below.dtype, below.mode, below.tiled_vae)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be …",
        "CUDA error: device-side assert triggered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
def test_error_that_poisons_the_device_is_told_apart(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setattr(DENOISE, failing(1, RuntimeError(message), denoise))
    with pytest.raises(DeviceBroken) as broken:
        picture(engine)
    assert "\n" not in str(broken.value)
    assert message.splitlines()[0] in str(broken.value)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "MPS backend out of memory (MPS allocated: 18.13 GB)",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
        "GET was unable to find an engine to execute this computation",
        "cuDNN Frontend error: [cudnn_frontend] Error: No valid execution plans built.",
    ],
)
def test_other_words_for_want_of_memory_are_known(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_other_errors_pass_through(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DENOISE, failing(1, RuntimeError("shape mismatch"), denoise))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        picture(engine)
