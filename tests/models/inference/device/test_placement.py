"""Where the weights go for the memory there is, with the published model's numbers."""

from dataclasses import replace

import pytest

from models.errors import OutOfMemory
from models.inference.device.placement import Dtype, Placement, decide, peak_bytes
from models.inference.loading.footprint import Footprint

PUBLISHED = Footprint(
    transformer=6_155_000_000,
    controlnet=1_560_000_000,
    text_encoder=4_020_000_000,
    vae=84_000_000,
    largest_block=205_000_000,
    width=3840,
    vae_width=128,
)
UNION_2_1 = replace(PUBLISHED, controlnet=3_350_000_000)
DEMO = Footprint(850_000, 280_000, 145_000, 320_000, 210_000, 64, 8)
GIB = 2**30


@pytest.mark.parametrize(
    ("card_gib", "footprint", "mode"),
    [
        (80, UNION_2_1, "resident"),
        (40, UNION_2_1, "resident"),
        (32, PUBLISHED, "resident"),
        (24, PUBLISHED, "text-encoder-offload"),
        (24, UNION_2_1, "model-offload"),
        (16, PUBLISHED, "block-offload"),
        (8, PUBLISHED, "block-offload"),
    ],
)
def test_placement_on_a_gpu_goes_by_what_is_free(card_gib: int, footprint: Footprint, mode: str) -> None:
    # The driver and the desktop take some.
    placement = decide("cuda", int(card_gib * GIB * 0.97), footprint)
    assert (placement.mode, placement.dtype) == (mode, "bfloat16")


@pytest.mark.parametrize(
    ("card_gib", "mode"),
    [(24, "resident"), (16, "resident"), (12, "model-offload"), (8, "block-offload")],
)
def test_eight_bits_keep_more_on_a_small_card(card_gib: int, mode: str) -> None:
    assert decide("cuda", int(card_gib * GIB * 0.97), PUBLISHED, "int8").mode == mode


def test_narrow_files_are_not_widened_where_they_would_not_fit() -> None:
    narrow = replace(PUBLISHED, is_narrow=True)
    for free, precision, mode in (
        (80, "bfloat16", "resident"),
        (16, "int8", "resident"),
        (8, "int8", "block-offload"),
    ):
        placement = decide("cuda", int(free * GIB * 0.97), narrow)
        assert (placement.precision, placement.mode) == (precision, mode)
    assert decide("cpu", 80 * GIB, narrow, has_copies=True).precision == "int8"
    assert decide("cpu", 80 * GIB, narrow, "bfloat16", has_copies=True).mode == "resident"


def test_float32_files_are_mapped_from_their_copy_alone() -> None:
    wide = replace(PUBLISHED, is_wide=True)
    assert decide("cpu", 30 * GIB, wide, has_copies=True).mode == "mapped"
    assert decide("cpu", 64 * GIB, wide, "bfloat16").mode == "resident"


def test_card_without_bfloat16_takes_float16() -> None:
    assert decide("cuda", 40 * GIB, PUBLISHED, rest="float16").dtype == "float16"


def test_autoencoder_works_in_tiles_only_where_the_largest_picture_does_not_fit_whole() -> None:
    assert not decide("cuda", 80 * GIB, PUBLISHED).tiled_vae
    assert decide("cuda", 8 * GIB, PUBLISHED).tiled_vae


def test_each_smaller_placement_needs_less() -> None:
    peaks = [
        peak_bytes(UNION_2_1, "bfloat16", mode, tiled_vae=True)
        for mode in ("resident", "text-encoder-offload", "model-offload", "block-offload")
    ]
    assert peaks == sorted(peaks, reverse=True)


def test_cpu_takes_float32_and_the_demo_model_fits_anywhere() -> None:
    assert decide("cpu", 2 * GIB, DEMO) == Placement("cpu", "float32", "resident")


def test_cpu_takes_eight_bits_where_the_pages_of_the_files_have_no_room() -> None:
    for free, precision in ((80, "bfloat16"), (24, "bfloat16"), (21, "int8"), (8, "bfloat16")):
        assert decide("cpu", free * GIB, UNION_2_1).precision == precision
    for free, precision in ((24, "bfloat16"), (16, "int8"), (5, "int8")):
        placement = decide("cpu", free * GIB, UNION_2_1, has_copies=True)
        assert (placement.precision, placement.mode) == (precision, "mapped")
    assert decide("cpu", 32 * GIB, PUBLISHED, rest="float32").dtype == "float32"


@pytest.mark.parametrize(("rest", "whole", "tiled"), [("bfloat16", 8, 5), ("float32", 16, 10)])
def test_large_model_on_a_cpu_stays_mapped_and_needs_a_few_gigabytes(
    rest: Dtype, whole: int, tiled: int
) -> None:
    for free, in_tiles in ((whole, False), (tiled, True)):
        assert decide("cpu", free * GIB, UNION_2_1, rest) == Placement("cpu", rest, "mapped", in_tiles)
    assert decide("cpu", 128 * GIB, PUBLISHED, "float32", "resident").mode == "resident"


def test_apple_gpu_takes_bfloat16_and_keeps_everything_resident() -> None:
    assert decide("mps", 64 * GIB, PUBLISHED) == Placement("mps", "bfloat16", "resident")


def test_what_is_asked_for_is_done() -> None:
    placement = decide("cuda", 80 * GIB, PUBLISHED, "float16", "model-offload")
    assert (placement.dtype, placement.mode) == ("float16", "model-offload")


@pytest.mark.parametrize(
    ("device", "free", "options", "advice"),
    [
        ("cpu", 2 * GIB, {}, "use ZTURBO_MODEL=demo"),
        ("cpu", 12 * GIB, {"dtype": "int8"}, "of disk for the weights in 8 bits"),
        ("cpu", 3 * GIB, {"has_copies": True}, "use ZTURBO_MODEL=demo"),
        ("cpu", 23 * GIB, {"mode": "resident", "dtype": "float32"}, "leave ZTURBO_PLACEMENT"),
        ("cuda", 3 * GIB, {}, "stop what else runs on this GPU"),
        ("cuda", 16 * GIB, {"mode": "resident"}, "leave ZTURBO_PLACEMENT at auto"),
    ],
)
def test_model_that_does_not_fit_says_what_it_needs_and_what_to_do(
    device: str, free: int, options: dict[str, str], advice: str
) -> None:
    with pytest.raises(OutOfMemory, match=r"needs \d+\.\d GB of memory on .* GB are free: ") as failure:
        decide(device, free, PUBLISHED, **options)  # type: ignore[arg-type]
    assert advice in str(failure.value)
