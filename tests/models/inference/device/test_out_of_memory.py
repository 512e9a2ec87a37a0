"""A device that runs out of memory, or fails for good, in the middle of a picture."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from models.errors import DeviceBroken, OutOfMemory
from models.inference.denoise.pipeline import denoise
from models.inference.device.out_of_memory import fit_batch, is_out_of_memory
from models.inference.device.placement import Placement, smaller
from models.inference.engine import Engine
from models.inference.lora.stack import LoraStack
from models.job import Job, Pixels
from tests.models.inference.test_engine import settings_for

DENOISE = "models.inference.engine.denoise"
JOB = Job(prompt="a red ball", width=128, height=128, num_inference_steps=2, seed=1)


@pytest.fixture
def engine(tiny_model: Path, tmp_path: Path) -> Engine:
    return Engine.load(settings_for(tiny_model, tmp_path))


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


def test_then_a_large_picture_is_decoded_in_tiles_without_denoising_again_and_a_smaller_one_is_not(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.device.placement.TILE_PIXELS", 64 * 64)
    steps: list[int] = []
    with monkeypatch.context() as short:
        short.setattr(AutoencoderKL, "decode", failing(2, out_of_memory(), AutoencoderKL.decode))
        tiled = engine.generate(JOB, None, lambda step: steps.append(step.step))
    assert steps == [1, 2]
    assert "for some minutes this server works slower" in tiled.facts.warnings[0]
    in_tiles: list[bool] = []

    def decode(vae: AutoencoderKL, *args: Any, **options: Any) -> Any:
        in_tiles.append(vae.use_tiling)
        return genuine(vae, *args, **options)

    genuine = AutoencoderKL.decode
    monkeypatch.setattr(AutoencoderKL, "decode", decode)
    for side in (96, 128):
        engine.generate(JOB.model_copy(update={"width": side, "height": side}), None, lambda step: None)
    assert in_tiles == [False, True]
    monkeypatch.setattr("models.inference.device.loaded_model.QUIET_SECONDS", 0)
    assert engine.generate(JOB, None, lambda step: None).facts.warnings == ()
    assert in_tiles == [False, True, False], "after a quiet while it is as it was planned"


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


def test_then_weights_stream_and_the_picture_stays_the_same_until_memory_has_sufficed_for_a_while(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = picture(engine)
    # On a CPU there is nothing to gain by it, so the GPU's ladder is asked for.
    monkeypatch.setattr("models.inference.device.loaded_model.smaller", _as_on_a_gpu)
    with monkeypatch.context() as short:
        # The freed cache does not help.
        short.setattr(DENOISE, failing(2, out_of_memory(), denoise))
        np.testing.assert_array_equal(picture(engine), expected)
    assert engine._model.placement.mode == "streamed"
    np.testing.assert_array_equal(picture(engine), expected)
    monkeypatch.setattr("models.inference.device.loaded_model.QUIET_SECONDS", 0)
    np.testing.assert_array_equal(picture(engine), expected)
    assert engine._model.placement.mode == "resident"


def test_first_what_others_hold_of_the_device_is_given_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine._detectors._depth = lambda pixels: pixels
    given: list[int] = []
    monkeypatch.setattr(LoraStack, "make_room", lambda self: given.append(1))
    engine._model.givers[0] = engine._loras.make_room
    monkeypatch.setattr(DENOISE, failing(1, out_of_memory(), denoise))
    assert picture(engine).any()
    assert given == [1]
    assert engine._detectors._depth is None


def test_graphs_are_gone_before_the_weights_that_they_read_are(engine: Engine) -> None:
    engine._graphs = object()  # type: ignore[assignment]
    engine._model.free_cache()
    assert engine._graphs is None


def test_below_the_last_rung_it_is_an_error_and_the_next_picture_is_right(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = picture(engine)
    monkeypatch.setattr("models.inference.device.placement.TILE_PIXELS", 64 * 64)
    monkeypatch.setattr("models.inference.device.loaded_model.smaller", _as_on_a_gpu)
    with monkeypatch.context() as short:
        short.setattr(DENOISE, failing(9, out_of_memory(), denoise))
        with pytest.raises(OutOfMemory, match="128x128"):
            picture(engine)
    rungs = {key.split("|")[1]: times for key, times in engine.counts.items() if key.startswith("oom|")}
    assert rungs == dict.fromkeys(("free_cache", "tiled_decode", "stream_text_encoder", "give_up"), 1)
    monkeypatch.setattr("models.inference.device.loaded_model.QUIET_SECONDS", 0)
    np.testing.assert_array_equal(picture(engine), expected)


def test_streamed_model_holds_less_and_then_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.device.placement.LEAST_HELD_BYTES", 10**5)
    monkeypatch.setattr("models.inference.device.loaded_model.smaller", _as_on_a_gpu)
    placement = Placement("cpu", "float32", "streamed", held_bytes=2 * 10**5)
    monkeypatch.setattr("models.inference.device.loaded_model.plan", lambda *_: placement)
    settings = settings_for(tiny_model, tmp_path)
    engine = Engine.load(settings)
    expected = picture(engine)
    for held in (10**5, 0):
        with monkeypatch.context() as short:
            short.setattr(DENOISE, failing(2, out_of_memory(), denoise))
            np.testing.assert_array_equal(picture(engine), expected)
        assert engine._model.placement.held_bytes == held
    assert engine.counts["oom|stream_blocks"] == 2


def test_load_that_runs_out_of_memory_leaves_none_of_it_and_says_so(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def run_out(*_: object) -> None:
        weights = torch.zeros(1)
        weights.itself = weights  # type: ignore[attr-defined]
        held.append(weakref.ref(weights))
        raise out_of_memory()

    monkeypatch.setattr("models.inference.engine.LoadedModel.make_room", run_out)
    settings = settings_for(tiny_model, tmp_path)
    with pytest.raises(
        OutOfMemory, match=r"while the model was loaded \(CUDA out of memory.*\): stop what"
    ) as said:
        Engine.load(settings)
    assert [tensor() for tensor in held] == [None]
    assert said.value.__context__ is None


def test_way_back_up_that_has_no_room_leaves_the_model_as_it_was(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = picture(engine)
    monkeypatch.setattr("models.inference.device.loaded_model.smaller", _as_on_a_gpu)
    assert engine._model.shrink(0)
    monkeypatch.setattr("models.inference.device.loaded_model.QUIET_SECONDS", 0)
    monkeypatch.setattr(torch.nn.Module, "to", failing(1, out_of_memory(), torch.nn.Module.to))
    with pytest.raises(torch.OutOfMemoryError):
        engine._model.go_back()
    assert engine._model.placement.mode == "streamed"
    np.testing.assert_array_equal(picture(engine), expected)


def _as_on_a_gpu(placement: Placement, pixels: int) -> Placement | None:
    below = smaller(replace(placement, device="cuda"), pixels)
    return below and replace(below, device=placement.device)


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
