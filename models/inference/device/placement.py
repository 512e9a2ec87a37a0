"""The decision on device, number type and where the weights stay between uses, from the memory there is.

It is arithmetic on numbers, so that it can be tested without a GPU; `models.inference.device.loaded_model`
carries it out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from models.errors import OutOfMemory
from models.inference.denoise.rounding import EightBits
from models.inference.loading.footprint import PARTS, Footprint, Part

Dtype = Literal["float32", "bfloat16", "float16"]
Precision = Dtype | EightBits
"""`int8` and `fp8`: the large components' matrices are in 8 bits, the rest is in a `Dtype`."""
Quantization = Literal["auto", "off"] | EightBits
"""A value of ZTURBO_QUANTIZATION."""
Mode = Literal["resident", "streamed", "mapped"]
"""The places of the weights between uses. resident: everything stays on the device. streamed, on a GPU: as
many blocks as it has room for stay there, and the others, the text encoder's first, stream from host memory
while they are used. mapped, on a CPU: they stay in their files, of whose pages the system keeps in memory
what it has room for."""

SMALL_PARAMETERS = 2**28
"""A smaller transformer is copied on a CPU, in float32: exact, and soon done."""

QUANTIZED_BYTES = 1.04
"""Bytes a parameter where the blocks' matrices have 8 bits; the rest has 16, and each row a scale."""
QUANTIZED_TEXT_BYTES = 1.12
"""The same for the text encoder, whose table of words stays in 16 bits."""
QUANTIZED_CONTROL_BYTES = 1.13
"""The same for a control branch, the projections of whose hints do."""
BYTES: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
VAE_BYTES: Mapping[Dtype, int] = {**BYTES, "float16": 4}
"""The same for the autoencoder, which float16 would overflow in: it is float32 beside it."""
LARGEST_PIXELS = 2048 * 2048
PROMPT_TOKENS = 512
"""A full prompt."""
SLOTS = 2
"""The ring has two slots: the device reads a block in one while the other is filled."""
OUTSIDE_PART = 32
"""No larger part of a transformer stays on the device while its blocks come and go: what is in no block, and
what makes the factors of all steps (a 45th of the published one with Union 1.0)."""
WORDS_PART = 10
"""The same of a text encoder: its table of words."""
LEAST_HELD_BYTES = 10**9
"""Less is not worth another try."""
HIDDEN_VECTORS = 24
"""Vectors of the transformer's width alive at once per token: residual, query, key, value, their rotation in
float32 and the feed-forward's inner 8/3 thrice. An estimate, on the safe side."""
VAE_VECTORS = 6
"""Vectors alive at once per pixel of the decoder's last stage, in its first width. An estimate as well."""
GPU_VAE_VECTORS = 8
"""The same on a GPU, whose norms copy what the convolutions have channels-last."""
TILE_PIXELS = 1024 * 1024
"""The autoencoder works on pieces of this size where a larger picture does not fit whole."""
SMALL_TILE_SIDE = 512
"""Pixels along each side of its pieces where those are too large as well."""
CONTEXT_BYTES = 512 * 2**20
"""What the driver and the libraries take for themselves."""
LORA_BYTES = 10**9
"""Three LoRAs of rank 32, beside weights that stream: their factors, and what is put together of them."""
HOST_BYTES = 2 * 10**9
"""What a process with a GPU takes of the host beside weights: libraries, the driver's part, pictures."""


@dataclass(frozen=True)
class Placement:
    device: str
    dtype: Dtype
    mode: Mode
    whole_pixels: int = LARGEST_PIXELS
    """Pixels of the largest picture that the autoencoder works on whole; no tile of a larger one has more."""
    eight_bits: EightBits | None = None
    held_bytes: int | None = None
    """streamed: what blocks of the transformer and of the control branch may take of the device, while a
    picture of `TILE_PIXELS` is made; None: all of them stay there for good."""

    @property
    def precision(self) -> Precision:
        return self.eight_bits or self.dtype

    @property
    def is_widened(self) -> bool:
        """True where a block's weights become float32 when they are used."""
        return self.mode == "mapped" and self.dtype == "float32" and not self.eight_bits

    @property
    def stored_dtype(self) -> Dtype:
        """The type of the weights that have no 8 bits, in memory or in the files that are mapped."""
        return "bfloat16" if self.is_widened else self.dtype


OnPlan = Callable[[Placement, Footprint], None]
"""Told where a model of this weight will be."""


def decide(
    device: str,
    free_bytes: int,
    footprint: Footprint,
    dtype: Dtype | Literal["auto"] = "auto",
    quantization: Quantization = "auto",
    *,
    rest: Dtype = "bfloat16",
    disk_bytes: int = 0,
    host_bytes: int = 2**62,
) -> Placement:
    """The fastest placement that fits in `free_bytes` of the device's memory.

    `rest` is what a `dtype` of `auto` is on a GPU, and beside 8 bits; `disk_bytes`: disk that copies of the
    weights may take; `host_bytes`: memory beside a GPU's. On a CPU large weights stay mapped, and `auto` of
    both is 8 bits where the files have no more or their pages have no room; on Apple's GPU, where they have
    no more or 16 bits have no room. Raises `OutOfMemory` with what is needed and what is there.
    """
    if quantization == "auto" and dtype != "auto":
        quantization = "off"
    own = rest if dtype == "auto" else dtype
    if device.startswith("cuda"):
        return _on_gpu(device, free_bytes, footprint, own, quantization, disk_bytes, host_bytes)
    if device == "cpu" and footprint.transformer >= SMALL_PARAMETERS and dtype != "float16":
        return _on_large_cpu(free_bytes, footprint, own, quantization, disk_bytes)
    exact: Dtype = "float32" if dtype == "auto" and device == "cpu" else own
    whole = Placement(device, exact, "resident")
    rounded = Placement(device, own, "resident", eight_bits=_numbers(quantization))
    if quantization == "auto":
        # Nothing is widened that is stored in fewer bits.
        candidates = [rounded] if footprint.is_narrow else [whole, rounded]
    else:
        candidates = [whole] if quantization == "off" else [rounded]
    for candidate in candidates:
        for placement in (candidate, replace(candidate, whole_pixels=TILE_PIXELS)):
            needed = peak_bytes(footprint, placement)
            if needed <= free_bytes:
                return placement
    raise OutOfMemory(
        f"The model needs {_gb(needed)} of memory on {device} in {placement.precision}, and "
        f"{_gb(free_bytes)} are free"
    )


def _on_gpu(
    device: str,
    free_bytes: int,
    footprint: Footprint,
    dtype: Dtype,
    quantization: Quantization,
    disk_bytes: int,
    host_bytes: int,
) -> Placement:
    """Everything on the card, or what it takes; blocks that stream need room on the host, or mapped files."""
    wide = Placement(device, dtype, "resident")
    rounded = replace(wide, eight_bits=_numbers(quantization))
    if quantization == "auto" and footprint.is_narrow:
        # What is stored in few bits is copied in few: widened, it is a larger copy and no better.
        candidates = [wide, rounded, replace(rounded, mode="streamed")]
    else:
        chosen = wide if quantization in ("auto", "off") else rounded
        candidates = [chosen, replace(chosen, mode="streamed")]
    # A picture that is decoded in small pieces has seams: only where it would not be made else.
    for tile, candidate in product((TILE_PIXELS, SMALL_TILE_SIDE**2), candidates):
        placement = _filled(candidate, footprint, free_bytes, tile)
        on_host = host_need(footprint, candidate, disk_bytes)
        if placement and on_host <= host_bytes:
            return placement
    if placement:
        raise OutOfMemory(
            f"The model needs {_gb(on_host)} of the host's memory for weights that do not fit {device} in "
            f"{candidate.precision}, and {_gb(host_bytes)} are free"
        )
    smallest = replace(candidate, held_bytes=0, whole_pixels=SMALL_TILE_SIDE**2)
    least = peak_bytes(footprint, smallest, TILE_PIXELS)
    raise OutOfMemory(
        f"The model needs {_gb(least)} of memory on {device} in {candidate.precision} for pictures of "
        f"1024x1024, and {_gb(free_bytes)} are free"
    )


def _filled(placement: Placement, footprint: Footprint, free_bytes: int, tile: int) -> Placement | None:
    """What this does with so much memory, and tiles of so many pixels; None where it does not fit."""
    streamed = placement.mode == "streamed"
    # Held blocks make room for a larger picture; a resident model has nothing to take from the device.
    pixels = TILE_PIXELS if streamed else LARGEST_PIXELS
    tiled = replace(placement, whole_pixels=tile, held_bytes=0 if streamed else None)
    room = free_bytes - peak_bytes(footprint, tiled, pixels)
    if room < 0:
        return None
    beside = room - _denoiser_bytes(footprint, placement) if streamed else room
    dtype = placement.dtype
    working = working_bytes(footprint.width, footprint.vae_width, dtype, pixels, tile)
    whole = (working + beside) // (footprint.vae_width * GPU_VAE_VECTORS * VAE_BYTES[dtype])
    return replace(
        tiled,
        whole_pixels=tile if tile < TILE_PIXELS else max(tile, min(whole, LARGEST_PIXELS)),
        held_bytes=room if streamed else None,
    )


def host_need(footprint: Footprint, placement: Placement, disk_bytes: int) -> int:
    """Memory of its own that a process with a GPU takes of the host.

    Weights that are mapped take none. Those of the text encoder have their home there in every placement.
    """
    need = HOST_BYTES
    if placement.mode == "streamed":
        need += SLOTS * _slot_bytes(footprint, placement)
    if placement.stored_dtype == "float32" and not placement.eight_bits:
        in_memory = PARTS
    elif copy_bytes(footprint, placement) <= disk_bytes:
        in_memory = frozenset()
    else:
        in_memory = _copied(footprint, placement)
    if "text_encoder" in in_memory:
        need += _text_bytes(footprint, placement)
    if placement.mode == "streamed":
        size = QUANTIZED_BYTES if placement.eight_bits else BYTES[placement.dtype]
        need += int(sum(getattr(footprint, part) for part in in_memory - {"text_encoder"}) * size)
    return need


def copy_bytes(footprint: Footprint, placement: Placement) -> int:
    """What copies of the weights take of the disk, where such a placement is loaded from them."""
    if placement.eight_bits:
        return eight_bit_bytes(footprint, placement.dtype)
    return int(sum(getattr(footprint, part) for part in _copied(footprint, placement)) * BYTES["bfloat16"])


def _copied(footprint: Footprint, placement: Placement) -> frozenset[Part]:
    """The components that cannot be used where they lie in their files, but in a copy."""
    if placement.eight_bits or placement.dtype == "float16":
        return PARTS
    return footprint.cast if placement.stored_dtype == "bfloat16" else frozenset()


def _numbers(quantization: Quantization) -> EightBits:
    """What weights are rounded to, if they are."""
    return "fp8" if quantization == "fp8" else "int8"


def _on_large_cpu(
    free_bytes: int,
    footprint: Footprint,
    dtype: Dtype,
    quantization: Quantization,
    disk_bytes: int,
) -> Placement:
    """The first that has room for the pages that every step reads, else the first that fits without it."""
    whole = Placement("cpu", dtype, "mapped")
    rounded = replace(whole, eight_bits=_numbers(quantization))
    whole, rounded = (
        each if copy_bytes(footprint, each) <= disk_bytes else replace(each, mode="resident")
        for each in (whole, rounded)
    )
    if quantization == "auto":
        # Nothing is read in 16 bits that is stored in fewer.
        candidates = [rounded] if footprint.is_narrow else [whole, rounded]
    else:
        candidates = [whole] if quantization == "off" else [rounded]
    needed = 0
    for with_pages in (True, False):
        # Where they are read from the disk at every step, the fewer the better, and the more room for them.
        for placement in candidates if with_pages else candidates[::-1]:
            pages = page_bytes(footprint, placement) if with_pages else 0
            for whole_pixels in (LARGEST_PIXELS, TILE_PIXELS) if with_pages else (TILE_PIXELS,):
                tried = replace(placement, whole_pixels=whole_pixels)
                needed = peak_bytes(footprint, tried)
                if needed + pages <= free_bytes:
                    return tried
    raise OutOfMemory(
        f"The model needs {_gb(needed)} of memory on cpu in {placement.precision} ({placement.mode}), "
        f"and {_gb(free_bytes)} are free"
    )


def eight_bit_bytes(footprint: Footprint, dtype: Dtype) -> int:
    """What the weights take in 8 bits, in memory or on the disk, with the rest in `dtype`."""
    rest = BYTES[dtype] - 1
    return int(
        footprint.transformer * (1 + (QUANTIZED_BYTES - 1) * rest)
        + footprint.controlnet * (1 + (QUANTIZED_CONTROL_BYTES - 1) * rest)
        + footprint.text_encoder * (1 + (QUANTIZED_TEXT_BYTES - 1) * rest)
    )


def page_bytes(footprint: Footprint, placement: Placement) -> int:
    """What every step reads of files that are mapped."""
    if placement.mode != "mapped":
        return 0
    size = QUANTIZED_BYTES if placement.eight_bits else BYTES["bfloat16"]
    return int((footprint.transformer + footprint.controlnet) * size)


def smaller(placement: Placement, pixels: int) -> Placement | None:
    """The next one down that needs less memory for a picture of so many pixels; None below the last."""
    if TILE_PIXELS < pixels <= placement.whole_pixels:
        return replace(placement, whole_pixels=pixels - 1)
    if not placement.device.startswith("cuda"):
        return None
    if placement.mode == "resident":
        return replace(placement, mode="streamed")
    if not placement.held_bytes:
        return None
    half = placement.held_bytes // 2
    return replace(placement, held_bytes=half if half >= LEAST_HELD_BYTES else 0)


def held_for(placement: Placement, width: int, vae_width: int, pixels: int, pictures: int) -> int:
    """What blocks may take of the device while pictures of so many pixels are made, denoised together."""
    dtype = placement.dtype
    tile = min(TILE_PIXELS, placement.whole_pixels)
    planned = working_bytes(width, vae_width, dtype, TILE_PIXELS, tile)
    wanted = working_bytes(width, vae_width, dtype, pixels, placement.whole_pixels, pictures)
    return max(0, (placement.held_bytes or 0) - max(0, wanted - planned))


def peak_bytes(footprint: Footprint, placement: Placement, pixels: int = LARGEST_PIXELS) -> int:
    """The most memory of the device that a placement takes at once for a picture of so many pixels."""
    size = BYTES[placement.dtype]
    denoiser = _denoiser_bytes(footprint, placement)
    text_encoder = _text_bytes(footprint, placement)
    on_gpu = placement.device.startswith("cuda")
    working = working_bytes(
        footprint.width, footprint.vae_width, placement.dtype, pixels, placement.whole_pixels, on_gpu=on_gpu
    )
    peak = footprint.vae * VAE_BYTES[placement.dtype] + working + CONTEXT_BYTES
    match placement.mode:
        case "resident":
            peak += denoiser + text_encoder
        case "mapped" if placement.is_widened:
            # The buffer for a block, and what is in none.
            peak += footprint.largest_block * size + denoiser // OUTSIDE_PART
        case "streamed":
            # What is in no block stays, and has no 8 bits.
            outside = (footprint.transformer + footprint.controlnet) // OUTSIDE_PART
            peak += (outside + footprint.text_encoder // WORDS_PART) * size
            held = denoiser if placement.held_bytes is None else min(denoiser, placement.held_bytes)
            peak += held + SLOTS * _slot_bytes(footprint, placement) + LORA_BYTES
    return peak


def working_bytes(
    width: int,
    vae_width: int,
    dtype: Dtype,
    pixels: int,
    whole_pixels: int,
    pictures: int = 1,
    *,
    on_gpu: bool = True,
) -> int:
    """What is alive at once beside weights: of denoising in `dtype`, or of decoding.

    `width` is the transformer's, `vae_width` that of the decoder's last stage.
    """
    tokens = pictures * pixels // 16**2 + PROMPT_TOKENS
    at_once = pixels if pixels <= whole_pixels else min(whole_pixels, TILE_PIXELS)
    vectors = GPU_VAE_VECTORS if on_gpu else VAE_VECTORS
    denoising = tokens * width * HIDDEN_VECTORS * BYTES[dtype]
    return max(denoising, at_once * vae_width * vectors * VAE_BYTES[dtype])


def _denoiser_bytes(footprint: Footprint, placement: Placement) -> int:
    size = QUANTIZED_BYTES if placement.eight_bits else BYTES[placement.dtype]
    return int((footprint.transformer + footprint.controlnet) * size)


def _text_bytes(footprint: Footprint, placement: Placement) -> int:
    size = QUANTIZED_TEXT_BYTES if placement.eight_bits else BYTES[placement.dtype]
    return int(footprint.text_encoder * size)


def _slot_bytes(footprint: Footprint, placement: Placement) -> int:
    """A slot of the ring."""
    size = QUANTIZED_BYTES if placement.eight_bits else BYTES[placement.dtype]
    return int(footprint.largest_block * size)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
