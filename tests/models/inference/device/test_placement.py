"""Where the weights go for the memory there is, with the published model's numbers."""

from dataclasses import replace

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model

from benchmarks.full_size import weights as full_size
from models.errors import OutOfMemory
from models.inference.control.controlnet import KNOWN, empty_controlnet
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.int8 import RoundedLinear
from models.inference.denoise.rounding import round_matrices
from models.inference.device.placement import (
    BYTES,
    GPU_VAE_VECTORS,
    LARGEST_PIXELS,
    TILE_PIXELS,
    Dtype,
    Placement,
    copy_bytes,
    decide,
    held_for,
    host_need,
    peak_bytes,
    smaller,
)
from models.inference.loading.footprint import Footprint, Part

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
DISK = 10**11
"""Room for any copies of the weights."""


def metal_bytes(mac_gib: int) -> int:
    """What Metal lets the GPU of a Mac have, as such machines have told."""
    return int(mac_gib * GIB * (3 / 4 if mac_gib >= 36 else 2 / 3))


@pytest.mark.parametrize(
    ("card_gib", "footprint", "held"),
    [
        (80, UNION_2_1, None),
        (40, UNION_2_1, None),
        (32, PUBLISHED, None),
        (24, UNION_2_1, 1),
        (16, PUBLISHED, 0.7),
        (12, PUBLISHED, 0.4),
        (8, PUBLISHED, 0.1),
    ],
)
def test_what_fits_a_card_stays_there_and_a_16_gb_host_is_enough(
    card_gib: int, footprint: Footprint, held: float | None
) -> None:
    # The driver and the desktop take some of both.
    placement = decide("cuda", int(card_gib * GIB * 0.97), footprint, host_bytes=12 * GIB)
    assert placement.dtype == "bfloat16"
    if held is None:
        assert (placement.mode, placement.held_bytes) == ("resident", None)
        return
    denoiser = 2 * (footprint.transformer + footprint.controlnet)
    assert placement.held_bytes is not None
    assert min(placement.held_bytes / denoiser, 1) == pytest.approx(held, abs=0.08)
    assert peak_bytes(footprint, placement, TILE_PIXELS) <= card_gib * GIB


def test_eight_bits_keep_more_on_a_small_card() -> None:
    for card_gib, mode in ((24, "resident"), (16, "resident"), (12, "streamed"), (8, "streamed")):
        free = int(card_gib * GIB * 0.97)
        placement = decide("cuda", free, PUBLISHED, quantization="int8", disk_bytes=DISK)
        assert placement.mode == mode
        plain = decide("cuda", free, PUBLISHED)
        assert plain.mode == "streamed" or card_gib > 24
    assert placement.held_bytes is not None
    assert plain.held_bytes is not None
    assert placement.held_bytes > plain.held_bytes


def test_card_of_six_gigabytes_makes_small_pictures_and_a_larger_one_takes_from_what_is_held() -> None:
    for options in ({}, {"quantization": "int8", "disk_bytes": DISK}):
        assert decide("cuda", int(6 * GIB * 0.97), PUBLISHED, **options).mode == "streamed"  # type: ignore[arg-type]
    assert decide("cuda", int(8 * GIB * 0.97), PUBLISHED, rest="float16").mode == "streamed"
    placement = decide("cuda", 12 * GIB, PUBLISHED)
    small, *larger = (
        held_for(placement, PUBLISHED.width, PUBLISHED.vae_width, side * side, pictures)
        for side, pictures in ((1024, 1), (1536, 1), (2048, 1), (1024, 4), (2048, 4))
    )
    assert small == placement.held_bytes
    assert all(held <= small for held in larger)
    assert larger == sorted(larger, reverse=True)
    assert 0 < larger[1] < small


def test_host_is_never_asked_for_more_than_it_has() -> None:
    card = 12 * GIB
    assert host_need(PUBLISHED, decide("cuda", card, PUBLISHED), 0) < 3 * 10**9
    # Without room on the disk for a copy, float32 files cannot be mapped.
    wide = replace(PUBLISHED, cast=frozenset({"transformer"}))
    assert decide("cuda", card, wide, host_bytes=12 * GIB, disk_bytes=DISK).mode == "streamed"
    for footprint, host, options in (
        (wide, 12 * GIB, {}),
        (PUBLISHED, 12 * GIB, {"dtype": "float16", "disk_bytes": 23e9}),
        (PUBLISHED, GIB, {}),
    ):
        with pytest.raises(OutOfMemory, match=r"GB of the host's memory .* are free$"):
            decide("cuda", card, footprint, host_bytes=host, **options)  # type: ignore[arg-type]


def test_float16_card_needs_no_host_memory_for_weights_that_have_a_copy() -> None:
    for card_gib, mode in ((8, "streamed"), (12, "streamed"), (48, "resident")):
        free = int(card_gib * GIB * 0.97)
        placement = decide("cuda", free, PUBLISHED, rest="float16", host_bytes=12 * GIB, disk_bytes=int(24e9))
        assert (placement.mode, placement.precision) == (mode, "float16")
        assert host_need(PUBLISHED, placement, int(24e9)) < 3 * 10**9
    # Without one the whole of them would be there in another type.
    assert host_need(PUBLISHED, decide("cuda", 8 * GIB, PUBLISHED, rest="float16"), 0) > 25 * 10**9


def test_narrow_files_are_not_widened_where_they_would_not_fit() -> None:
    narrow = replace(PUBLISHED, is_narrow=True, cast=frozenset({"transformer"}))
    for free, precision, mode in (
        (80, "bfloat16", "resident"),
        (16, "int8", "resident"),
        (8, "int8", "streamed"),
    ):
        placement = decide("cuda", int(free * GIB * 0.97), narrow, disk_bytes=DISK)
        assert (placement.precision, placement.mode) == (precision, mode)
    assert decide("cpu", 80 * GIB, narrow, disk_bytes=DISK).precision == "int8"
    assert decide("cpu", 80 * GIB, narrow, "bfloat16").mode == "resident"
    for device in ("cpu", "cuda"):
        assert not decide(device, 80 * GIB, narrow, quantization="off", disk_bytes=DISK).eight_bits


@pytest.mark.parametrize("rest", ["bfloat16", "float32"])
def test_disk_that_is_asked_for_is_enough_for_the_copies_in_eight_bits(rest: Dtype) -> None:
    with torch.device("meta"):
        transformer = use_own_blocks(ZImageTransformer2DModel(**full_size.PUBLISHED))
        text_encoder = Qwen3Model(Qwen3Config(**full_size.TEXT_ENCODER))
        branches = [use_own_blocks(empty_controlnet(layout, transformer.config)) for layout in KNOWN]
    plain = [sum(each.numel() for each in model.parameters()) for model in (transformer, text_encoder)]
    round_matrices(text_encoder, "int8")
    round_blocks(transformer, "int8")
    placement = Placement("cpu", rest, "mapped", eight_bits="int8")
    whole = copied_bytes(transformer, rest) + copied_bytes(text_encoder, rest)
    for branch in branches:
        weight = replace(
            PUBLISHED,
            transformer=plain[0],
            text_encoder=plain[1],
            controlnet=sum(each.numel() for each in branch.parameters()),
        )
        round_blocks(branch, "int8")
        assert 1 <= copy_bytes(weight, placement) / (whole + copied_bytes(branch, rest)) < 1.06


def copied_bytes(model: torch.nn.Module, rest: Dtype) -> int:
    """What a copy has of a model whose matrices are in 8 bits."""
    return sum(
        each.numel() * (each.element_size() if isinstance(module, RoundedLinear) else BYTES[rest])
        for module in model.modules()
        for each in module.parameters(recurse=False)
    )


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "controlnet"])
def test_component_that_is_not_stored_in_bfloat16_is_mapped_from_its_copy_alone(part: Part) -> None:
    cast = replace(PUBLISHED, cast=frozenset({part}))
    size = 2 * getattr(PUBLISHED, part)
    for disk, mode in ((size, "mapped"), (size - 1, "resident")):
        assert decide("cpu", 64 * GIB, cast, "bfloat16", disk_bytes=disk).mode == mode
    with pytest.raises(OutOfMemory):
        decide("cpu", 14 * GIB, cast, "bfloat16", disk_bytes=size - 1)
    streamed = decide("cuda", 8 * GIB, cast, disk_bytes=size)
    plain = host_need(PUBLISHED, streamed, 0)
    assert host_need(cast, streamed, size) == plain
    assert host_need(cast, streamed, size - 1) == plain + size
    # A text encoder's home is the host, also where the rest is on the card.
    on_card = replace(streamed, mode="resident", held_bytes=None)
    assert host_need(cast, on_card, 0) == host_need(PUBLISHED, on_card, 0) + size * (part == "text_encoder")


def test_card_without_bfloat16_takes_float16_and_room_for_an_autoencoder_in_float32() -> None:
    assert decide("cuda", 40 * GIB, PUBLISHED, rest="float16").dtype == "float16"
    wide, narrow = (decide("cuda", 12 * GIB, PUBLISHED, rest=rest) for rest in ("bfloat16", "float16"))
    decoding = TILE_PIXELS * PUBLISHED.vae_width * GPU_VAE_VECTORS
    more = 2 * (decoding + PUBLISHED.vae)
    assert (wide.held_bytes or 0) - (narrow.held_bytes or 0) == more
    # Four times the pixels take four times that in float32: nothing is held beside them.
    whole = replace(narrow, whole_pixels=LARGEST_PIXELS)
    widths = PUBLISHED.width, PUBLISHED.vae_width
    assert held_for(replace(whole, held_bytes=10**11), *widths, LARGEST_PIXELS, 1) == 10**11 - 12 * decoding
    # What decodes whole is planned in float32 too.
    card = int(24 * GIB * 0.97)
    large = decide("cuda", card, PUBLISHED, rest="float16")
    assert peak_bytes(PUBLISHED, replace(large, held_bytes=0), large.whole_pixels) <= card


def test_picture_of_1024_is_decoded_in_small_tiles_only_where_it_would_not_be_made_else() -> None:
    for free, rest, side in ((8, "float16", 1024), (7.3, "float16", 512), (6, "bfloat16", 1024)):
        placement = decide("cuda", int(free * GIB * 0.97), PUBLISHED, rest=rest)  # type: ignore[arg-type]
        assert placement.whole_pixels == side**2
        assert peak_bytes(PUBLISHED, placement, TILE_PIXELS) <= free * GIB
    # An RTX 2060.
    placement = decide("cuda", int(6 * GIB * 0.97), PUBLISHED, rest="float16")
    assert (placement.precision, placement.whole_pixels) == ("float16", 512**2)
    widths = PUBLISHED.width, PUBLISHED.vae_width
    assert held_for(placement, *widths, TILE_PIXELS, 1) == placement.held_bytes
    assert held_for(placement, *widths, LARGEST_PIXELS, 1) == 0


def test_autoencoder_works_in_tiles_only_where_the_largest_picture_does_not_fit_whole() -> None:
    assert decide("cuda", 80 * GIB, PUBLISHED).whole_pixels == LARGEST_PIXELS
    assert decide("cuda", 8 * GIB, PUBLISHED).whole_pixels == TILE_PIXELS
    assert TILE_PIXELS < decide("cuda", int(24 * GIB * 0.97), PUBLISHED).whole_pixels < LARGEST_PIXELS


@pytest.mark.parametrize("card_gib", [12, 40])
def test_each_smaller_placement_needs_less_and_there_is_a_last(card_gib: int) -> None:
    placements = [decide("cuda", card_gib * GIB, UNION_2_1)]
    while below := smaller(placements[-1], LARGEST_PIXELS):
        placements.append(below)
    peaks = [peak_bytes(UNION_2_1, each) for each in placements]
    assert peaks == sorted(set(peaks), reverse=True)
    assert placements[-1].mode == "streamed"


def test_autoencoder_is_asked_for_tiles_only_of_pictures_that_are_larger_than_one() -> None:
    placement = Placement("cpu", "float32", "resident")
    assert smaller(placement, TILE_PIXELS) is None
    tiled = smaller(placement, 2 * TILE_PIXELS)
    assert tiled is not None
    assert tiled.whole_pixels == 2 * TILE_PIXELS - 1


def test_cpu_takes_float32_and_the_demo_model_fits_anywhere() -> None:
    assert decide("cpu", 2 * GIB, DEMO) == Placement("cpu", "float32", "resident")


def test_cpu_takes_eight_bits_where_the_pages_of_the_files_have_no_room() -> None:
    for free, precision in ((80, "bfloat16"), (24, "bfloat16"), (21, "int8"), (8, "bfloat16")):
        assert decide("cpu", free * GIB, UNION_2_1).precision == precision
    for free, precision in ((24, "bfloat16"), (16, "int8"), (5, "int8")):
        placement = decide("cpu", free * GIB, UNION_2_1, disk_bytes=DISK)
        assert (placement.precision, placement.mode) == (precision, "mapped")
    assert decide("cpu", 32 * GIB, PUBLISHED, rest="float32").dtype == "float32"
    for options in ({"quantization": "off"}, {"dtype": "bfloat16"}):
        whole = decide("cpu", 16 * GIB, UNION_2_1, disk_bytes=DISK, **options)  # type: ignore[arg-type]
        assert whole.precision == "bfloat16"


def test_what_is_not_in_eight_bits_has_the_type_that_is_asked_for() -> None:
    for device, dtype in (("cpu", "float32"), ("cuda", "float16")):
        placement = decide(device, 40 * GIB, PUBLISHED, dtype, "int8")  # type: ignore[arg-type]
        assert (placement.dtype, placement.precision) == (dtype, "int8")


@pytest.mark.parametrize(("rest", "least", "whole"), [("bfloat16", 5, 28), ("float32", 10, 36)])
def test_large_model_on_a_cpu_stays_mapped_and_needs_a_few_gigabytes(
    rest: Dtype, least: int, whole: int
) -> None:
    # What a large picture would take for itself is the pages' room, where there is not enough for both.
    for free, in_tiles in ((least, True), (whole - 6, True), (whole, False)):
        assert decide("cpu", free * GIB, UNION_2_1, rest) == Placement(
            "cpu", rest, "mapped", TILE_PIXELS if in_tiles else LARGEST_PIXELS
        )


@pytest.mark.parametrize(
    ("mac_gib", "footprint", "precision", "is_tiled"),
    [
        (64, PUBLISHED, "bfloat16", False),
        (48, PUBLISHED, "bfloat16", False),
        (36, PUBLISHED, "bfloat16", True),
        (32, PUBLISHED, "int8", False),
        (24, PUBLISHED, "int8", True),
        (24, replace(PUBLISHED, is_narrow=True), "int8", True),
        (64, replace(PUBLISHED, is_narrow=True), "int8", False),
    ],
)
def test_mac_takes_the_best_that_its_gpu_may_use(
    mac_gib: int, footprint: Footprint, precision: str, is_tiled: bool
) -> None:
    placement = decide("mps", metal_bytes(mac_gib), footprint)
    assert (placement.precision, placement.mode) == (precision, "resident")
    assert placement.whole_pixels == (TILE_PIXELS if is_tiled else LARGEST_PIXELS)


def test_mac_has_what_is_asked_for_or_nothing() -> None:
    assert decide("mps", metal_bytes(64), PUBLISHED, quantization="int8").precision == "int8"
    for mac_gib, options in ((16, {}), (24, {"quantization": "off"}), (32, {"dtype": "bfloat16"})):
        with pytest.raises(OutOfMemory, match=r"needs \d+\.\d GB of memory on mps .* GB are free$"):
            decide("mps", metal_bytes(mac_gib), PUBLISHED, **options)  # type: ignore[arg-type]
