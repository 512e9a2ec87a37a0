"""What a machine will do with a model, told from sizes and one product that is timed."""

from pathlib import Path

import pytest
import torch

from models.config import ModelSettings
from models.errors import OutOfMemory
from models.inference.denoise.rounding import EightBits
from models.inference.device.placement import Dtype, Placement
from models.inference.forecast import PUBLISHED, Forecast, forecast, forecast_of

GIB = 2**30


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    return ModelSettings(data_dir=tmp_path, device="cpu", _env_file=None)


@pytest.mark.parametrize(("rest", "free"), [("bfloat16", 14 * GIB), ("float32", 16 * GIB)])
def test_published_model_is_foretold_with_its_place_memory_and_time(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch, rest: str, free: int
) -> None:
    monkeypatch.setattr("models.inference.device.loaded_model.fast_type", lambda device: rest)
    monkeypatch.setattr("models.inference.device.loaded_model.free_bytes", lambda device: free)
    # Whatever room this machine's disk has.
    monkeypatch.setattr("models.inference.loading.copies.spare_bytes", lambda folder: 100 * GIB)
    told = forecast(settings, PUBLISHED)
    assert (told.placement.mode, told.placement.precision) == ("mapped", "int8")
    assert told.peak_bytes + told.page_bytes < free
    assert "in int8 on cpu (mapped)" in str(told)
    assert " at 512x512 and " in str(told)
    assert told.seconds(512, 512) * 3 < told.seconds(1024, 1024)
    assert told.seconds(512, 512, 4) < told.seconds(512, 512) < told.seconds(512, 512, 9)


def test_time_is_that_of_the_arithmetic() -> None:
    # Two cores, bfloat16: 38 s a step at 512x512 (../shared/reference/ordinary-machines.md), 302 GFLOP/s.
    measured = Forecast(Placement("cpu", "bfloat16", "mapped"), 0, 0, PUBLISHED, 302e9, 302e9)
    step = measured.seconds(512, 512, 2) - measured.seconds(512, 512, 1)
    assert 30 < step < 60


@pytest.mark.parametrize(
    ("capability", "dtype", "said"),
    [
        ((7, 5), "float16", "this GPU has no bfloat16, so float16 is used"),
        ((7, 5), "bfloat16", "this GPU has no bfloat16, and is slow in it: ZTURBO_DTYPE=auto takes float16"),
        ((7, 5), "float32", None),
        ((8, 6), "float16", None),
    ],
)
def test_gpu_without_bfloat16_is_named(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: Dtype, said: str | None
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("models.inference.forecast._rate", lambda *_: 1e13)
    told = str(forecast_of(Placement("cuda", dtype, "streamed", held_bytes=0), PUBLISHED))
    assert said in told if said else "bfloat16" not in told


def test_what_streams_is_waited_for_once_a_step_and_once_a_token_that_magic_prompt_writes() -> None:
    def told(eight_bits: EightBits | None, held_bytes: int) -> Forecast:
        placement = Placement("cuda", "bfloat16", "streamed", eight_bits=eight_bits, held_bytes=held_bytes)
        return Forecast(placement, 0, 0, PUBLISHED, 1e16, 1e16)

    # A card of 8 GB: 4.9 of 7.2 GB of layers, 300 times at 12 GB/s.
    small = told(None, 2_370_000_000)
    assert 120 < small.rewriting_seconds < 124
    assert str(small).endswith("an estimate for an otherwise idle machine; Magic Prompt adds up to 3 min")
    assert 8 * 0.8 < small.seconds(512, 512) < 8 * 0.9
    for fitting in (told(None, 13 * 10**9), told("int8", 65 * 10**8)):
        assert fitting.rewriting_seconds == 0
        assert str(fitting).endswith("an estimate for an otherwise idle machine")
        assert fitting.seconds(512, 512) < 0.1


def test_device_without_fast_integers_is_timed_as_it_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.inference.denoise.int8._has_fast_integers", lambda device: False)
    monkeypatch.setattr(torch, "_int_mm", lambda *_: pytest.fail("it multiplies integers"))
    told = forecast_of(Placement("cpu", "bfloat16", "mapped", eight_bits="int8"), PUBLISHED)
    assert told.products > 0


def test_product_on_apples_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, ones = [], torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device, **more: ones(*size, **more))
    monkeypatch.setattr("models.inference.forecast.wait", lambda device: waits.append(device))
    forecast_of(Placement("mps", "bfloat16", "resident"), PUBLISHED)
    assert len(waits) == 4


def test_machine_that_is_too_small_is_told_what_would_fit(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.device.loaded_model.free_bytes", lambda device: GIB)
    with pytest.raises(OutOfMemory, match="ZTURBO_MODEL=demo"):
        forecast(settings, PUBLISHED)
