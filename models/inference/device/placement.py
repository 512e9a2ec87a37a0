"""The decision on device, number type and where the weights stay between uses, from the memory there is.

It is arithmetic on numbers, so that it can be tested without a GPU; `models.inference.device.offload` carries
it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from models.errors import OutOfMemory
from models.inference.loading.footprint import Footprint

Dtype = Literal["float32", "bfloat16", "float16"]
Precision = Dtype | Literal["int8"]
"""A value of ZTURBO_DTYPE. `int8`: the large components' matrices are in 8 bits, the rest is in a `Dtype`."""
Mode = Literal["resident", "text-encoder-offload", "model-offload", "block-offload", "mapped"]
"""The places of the weights between uses, from fastest to smallest. resident: everything stays on the device.
text-encoder-offload: the text encoder is copied there for each prompt. model-offload: each component is
copied there when it is needed. block-offload: so is each block of the large components. mapped, on a CPU:
they stay in their files, of whose pages the system keeps in memory what it has room for."""

ON_DEVICE: tuple[Mode, ...] = ("resident", "text-encoder-offload", "mapped")
"""The modes in which the transformer and the control branches never leave the device."""
GPU_MODES: tuple[Mode, ...] = ("resident", "text-encoder-offload", "model-offload", "block-offload")
SMALL_PARAMETERS = 2**28
"""A smaller transformer is copied on a CPU, in float32: exact, and soon done."""

QUANTIZED_BYTES = 1.04
"""Bytes a parameter where the blocks' matrices have 8 bits; the rest has 16, and each row a scale."""
QUANTIZED_TEXT_BYTES = 1.12
"""The same for the text encoder, whose table of words stays in 16 bits."""
BYTES: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
LARGEST_PIXELS = 2048 * 2048
LARGEST_TOKENS = LARGEST_PIXELS // 16**2 + 512
"""Image tokens of the largest picture and a full prompt."""
HIDDEN_VECTORS = 24
"""Vectors of the transformer's width alive at once per token: residual, query, key, value, their rotation in
float32 and the feed-forward's inner 8/3 thrice. An estimate, on the safe side."""
VAE_VECTORS = 6
"""Vectors alive at once per pixel of the decoder's last stage, in its first width. An estimate as well."""
TILE_PIXELS = 1024 * 1024
"""The autoencoder works on pieces of this size where the largest picture does not fit whole."""
CONTEXT_BYTES = 512 * 2**20
"""What the driver and the libraries take for themselves."""


@dataclass(frozen=True)
class Placement:
    device: str
    dtype: Dtype
    mode: Mode
    tiled_vae: bool = False
    eight_bits: bool = False

    @property
    def precision(self) -> Precision:
        return "int8" if self.eight_bits else self.dtype


def decide(
    device: str,
    free_bytes: int,
    footprint: Footprint,
    dtype: Precision | Literal["auto"] = "auto",
    mode: Mode | Literal["auto"] = "auto",
    *,
    rest: Dtype = "bfloat16",
    has_copies: bool = False,
) -> Placement:
    """The fastest placement that fits in `free_bytes` of the device's memory, or the one asked for.

    `rest` is what `auto` takes on a GPU, and the type of what is not in 8 bits; `has_copies`: weights in 8
    bits can be kept on the disk. Off the GPU there is nowhere to move weights to: on a CPU large ones stay
    mapped, and `auto` has 8 bits where the files have no more or their pages have no room; else all is
    resident. Raises `OutOfMemory` with what is needed, what is there and what to do.
    """
    large = footprint.transformer >= SMALL_PARAMETERS
    if device == "cpu" and mode == "auto" and large and dtype != "float16":
        return _on_large_cpu(free_bytes, footprint, dtype, rest, has_copies)
    on_gpu = device.startswith("cuda")
    precisions: tuple[Precision, ...] = (dtype,) if dtype != "auto" else (rest,)
    if dtype == "auto" and device == "cpu":
        precisions = "float32", "int8"
    if mode != "auto":
        modes: tuple[Mode, ...] = (mode,)
    else:
        modes = GPU_MODES if on_gpu else ("resident",)
    candidates = list(product(precisions, modes))
    if on_gpu and dtype == "auto" and footprint.is_narrow and mode == "auto":
        # What is stored in few bits is copied in few: widened, it is a larger copy and no better.
        candidates = [(rest, "resident"), *(("int8", each) for each in modes)]
    for precision, candidate in candidates:
        eight_bits = precision == "int8"
        own: Dtype = rest if precision == "int8" else precision
        for tiled in (False, True) if on_gpu else (False,):
            needed = peak_bytes(footprint, own, candidate, tiled_vae=tiled, quantized=eight_bits)
            if needed <= free_bytes:
                return Placement(device, own, candidate, tiled, eight_bits)
    raise OutOfMemory(
        f"The model needs {_gb(needed)} of memory on {device} in {precision} ({modes[-1]}), "
        f"and {_gb(free_bytes)} are free: {_advice(on_gpu, precision, mode)}."
    )


def _on_large_cpu(
    free_bytes: int,
    footprint: Footprint,
    dtype: Precision | Literal["auto"],
    rest: Dtype,
    has_copies: bool,
) -> Placement:
    """The first that has room for the pages that every step reads, else the first that fits without it."""
    own: Dtype = rest if dtype == "auto" or dtype == "int8" else dtype
    kept: Mode = "mapped" if has_copies else "resident"
    # What has other bits than the model would use cannot be used where it lies; wide ones have a copy.
    is_mapped = not footprint.is_narrow and (has_copies or not footprint.is_wide)
    stored: Mode = "mapped" if is_mapped else "resident"
    whole = Placement("cpu", own, stored)
    rounded = Placement("cpu", own, kept, eight_bits=True)
    if dtype == "auto":
        # Nothing is read in 16 bits that is stored in fewer.
        candidates = [rounded] if footprint.is_narrow else [whole, rounded]
    else:
        candidates = [rounded] if dtype == "int8" else [whole]
    needed = 0
    for with_pages in (True, False):
        # Where they are read from the disk at every step, the fewer the better.
        for placement in candidates if with_pages else candidates[::-1]:
            pages = page_bytes(footprint, placement) if with_pages else 0
            for tiled in (False, True):
                needed = peak_bytes(
                    footprint, own, placement.mode, tiled_vae=tiled, quantized=placement.eight_bits
                )
                if needed + pages <= free_bytes:
                    return replace(placement, tiled_vae=tiled)
    raise OutOfMemory(
        f"The model needs {_gb(needed)} of memory on cpu in {placement.precision} ({placement.mode}), "
        f"and {_gb(free_bytes)} are free: {_advice_on_cpu(placement, footprint, has_copies)}."
    )


def _advice_on_cpu(placement: Placement, footprint: Footprint, has_copies: bool) -> str:
    if placement.eight_bits and not has_copies:
        size = _gb(eight_bit_bytes(footprint))
        return f"free {size} of disk for the weights in 8 bits, or use ZTURBO_MODEL=demo"
    return "stop what else takes memory, or use ZTURBO_MODEL=demo, which needs next to none"


def eight_bit_bytes(footprint: Footprint) -> int:
    """What the weights take in 8 bits, in memory or on the disk."""
    denoiser = (footprint.transformer + footprint.controlnet) * QUANTIZED_BYTES
    return int(denoiser + footprint.text_encoder * QUANTIZED_TEXT_BYTES)


def page_bytes(footprint: Footprint, placement: Placement) -> int:
    """What every step reads of files that are mapped."""
    if placement.mode != "mapped":
        return 0
    size = QUANTIZED_BYTES if placement.eight_bits else BYTES["bfloat16"]
    return int((footprint.transformer + footprint.controlnet) * size)


def smaller(placement: Placement) -> Placement | None:
    """The next one down that needs less memory, at a price in time; None below the last."""
    if not placement.tiled_vae:
        return replace(placement, tiled_vae=True)
    if not placement.device.startswith("cuda"):
        return None
    below = GPU_MODES[GPU_MODES.index(placement.mode) + 1 :]
    if not below:
        return None
    return replace(placement, mode=below[0])


def peak_bytes(
    footprint: Footprint, dtype: Dtype, mode: Mode, *, tiled_vae: bool, quantized: bool = False
) -> int:
    """The most memory that a placement takes at once, for the largest picture."""
    size = BYTES[dtype]
    stored = QUANTIZED_BYTES if quantized else size
    denoiser = int((footprint.transformer + footprint.controlnet) * stored)
    text_encoder = int(footprint.text_encoder * (QUANTIZED_TEXT_BYTES if quantized else size))
    vae = footprint.vae * size
    denoising = LARGEST_TOKENS * footprint.width * HIDDEN_VECTORS * size
    pixels = TILE_PIXELS if tiled_vae else LARGEST_PIXELS
    decoding = pixels * footprint.vae_width * VAE_VECTORS * size
    match mode:
        case "resident":
            peak = denoiser + text_encoder + vae + max(denoising, decoding)
        case "text-encoder-offload":
            peak = denoiser + vae + max(text_encoder, denoising, decoding)
        case "model-offload":
            peak = max(text_encoder, denoiser + denoising, vae + decoding)
        case "mapped":
            # The buffer for a block, and what is in none.
            wide = 0 if dtype != "float32" or quantized else footprint.largest_block * size + denoiser // 16
            peak = wide + vae + max(denoising, decoding)
        case "block-offload":
            # What is in no block stays: embedders, and the text encoder's table of words, a tenth of it.
            stays = text_encoder // 8 + denoiser // 16 + vae
            peak = stays + max(2 * int(footprint.largest_block * stored) + denoising, decoding)
    return peak + CONTEXT_BYTES


def _advice(on_gpu: bool, precision: Precision, mode: str) -> str:
    if mode != "auto":
        return "leave ZTURBO_PLACEMENT at auto"
    if on_gpu:
        return "stop what else runs on this GPU, or use ZTURBO_MODEL=demo"
    if precision != "int8":
        return "leave ZTURBO_DTYPE at auto, or use ZTURBO_MODEL=demo, which needs next to none"
    return "stop what else takes memory, or use ZTURBO_MODEL=demo"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
