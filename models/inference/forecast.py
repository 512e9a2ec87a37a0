"""What a machine will do with a model, told before any weight is read: where it goes, memory, and time.

The time is the arithmetic of a picture over the rate of one product that is timed now: an estimate.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import ModelSettings
from models.duration import duration
from models.inference.denoise.int8 import CHUNK, Int8Linear, in_integers, integer_product, round_rows, seconds
from models.inference.device.devices import fast_type, find_device, wait
from models.inference.device.loaded_model import plan
from models.inference.device.placement import (
    BYTES,
    QUANTIZED_BYTES,
    SMALL_PARAMETERS,
    OnPlan,
    Placement,
    copy_bytes,
    page_bytes,
    peak_bytes,
)
from models.inference.loading.components import Files
from models.inference.loading.copies import Copies
from models.inference.loading.footprint import Footprint, footprint
from models.job import DEFAULT_STEPS
from models.prompt.expansion import MAX_NEW_TOKENS
from models.weights.resolve import replaced_parts, resolve_model

PUBLISHED = Footprint(
    transformer=6_155_000_000,
    controlnet=1_560_000_000,
    text_encoder=4_020_000_000,
    vae=84_000_000,
    largest_block=205_000_000,
    width=3840,
    vae_width=128,
    cast=frozenset({"transformer"}),
)
"""Z-Image-Turbo with ControlNet-Union 1.0, for a machine that has no weights yet."""

SIDE = 3840
"""Of the matrix that is timed: that of the published model's attention."""
PROMPT_TOKENS = 64
ROUNDING = 1.3
"""What a block in 8 bits takes beside its products, for rounding and rescaling (benchmarks/NOTES.md)."""
SLOWER = 2
"""How much slower a CPU computes attention and convolutions than products of matrices."""
DECODER_OPERATIONS = 580
"""Of the decoder for each pixel, in squares of its first width: the published one has 9.5 million at 128."""
LINK_BYTES = 12e9
"""A second, from host memory to a GPU."""
TEXT_LAYERS = 0.9
"""Of the text encoder's weights; the others are its table of words, which does not stream."""
TOLD_SECONDS = 10
"""A prompt that takes less to be rewritten takes nobody by surprise."""

log = logging.getLogger(__name__)


class Forecast(NamedTuple):
    """What will be."""

    placement: Placement
    peak_bytes: int
    """The most memory of its own, for the largest picture."""
    page_bytes: int
    """Pages of files that every step reads, which the system keeps if it has room."""
    footprint: Footprint
    products: float
    """Operations a second in the products of the blocks."""
    rest: float
    """Operations a second in the type of everything else."""
    lacks_bfloat16: bool = False
    """True for a GPU whose matrix units do not take it."""

    def seconds(self, width: int, height: int, steps: int = DEFAULT_STEPS) -> float:
        """An estimate for one picture without a control branch."""
        weight, placement = self.footprint, self.placement
        pixels = width * height
        tokens = pixels / 16**2 + PROMPT_TOKENS
        layers = weight.transformer / weight.largest_block
        slower = SLOWER if placement.device == "cpu" else 1
        step = 2 * weight.transformer * tokens / self.products
        step += 4 * tokens**2 * weight.width * layers * slower / self.rest
        step = max(step, self._copying_seconds(weight.transformer))
        prompt = 2 * weight.text_encoder * PROMPT_TOKENS / self.products
        decoding = DECODER_OPERATIONS * weight.vae_width**2 * pixels * slower / self.rest
        return prompt + steps * step + decoding

    @property
    def rewriting_seconds(self) -> float:
        """An estimate of what Magic Prompt's longest answer waits for weights, all of them for each token."""
        return MAX_NEW_TOKENS * self._copying_seconds(self.footprint.text_encoder * TEXT_LAYERS)

    def _copying_seconds(self, parameters: float) -> float:
        """What it takes to copy to a GPU what of so many has no place there."""
        placement = self.placement
        if placement.held_bytes is None:
            return 0
        size = QUANTIZED_BYTES if placement.eight_bits else BYTES[placement.dtype]
        return max(0, parameters * size - placement.held_bytes) / LINK_BYTES

    def __str__(self) -> str:
        """A sentence without its beginning."""
        placement = self.placement
        pages = f", and {self.page_bytes / 1e9:.1f} GB of pages of its files" if self.page_bytes else ""
        times = " and ".join(f"{duration(self.seconds(side, side))} at {side}x{side}" for side in (512, 1024))
        rewriting = self.rewriting_seconds
        also = f"; Magic Prompt adds up to {duration(rewriting)}" if rewriting > TOLD_SECONDS else ""
        return (
            f"in {placement.precision} on {placement.device} ({placement.mode}), in up to "
            f"{self.peak_bytes / 1e9:.1f} GB of memory{pages}; a picture of {DEFAULT_STEPS} steps takes "
            f"about {times}, an estimate for an otherwise idle machine{also}{self._said_of_bfloat16()}"
        )

    def _said_of_bfloat16(self) -> str:
        if not self.lacks_bfloat16 or self.placement.dtype == "float32":
            return ""
        said = "; this GPU has no bfloat16, "
        if self.placement.dtype == "float16":
            return said + "so float16 is used, with an autoencoder in float32"
        return said + "and is slow in it: ZTURBO_DTYPE=auto takes float16"


OnForecast = Callable[[str, Forecast], None]
"""Told the name of a model that is about to be loaded, and what it will do."""


def is_large(weight: Footprint) -> bool:
    """Whether pictures of such a model are worth a forecast: the demo's are there at once."""
    return weight.transformer >= SMALL_PARAMETERS


def telling(name: str, on_forecast: OnForecast | None) -> OnPlan:
    """What tells the log and `on_forecast` what to expect of a large model once it is planned."""

    def tell(placement: Placement, weight: Footprint) -> None:
        if is_large(weight):
            expected = forecast_of(placement, weight)
            log.info("%s runs %s.", name, expected)
            if on_forecast:
                on_forecast(name, expected)

    return tell


def forecast(settings: ModelSettings, weight: Footprint) -> Forecast:
    """For a model of this weight; raises `OutOfMemory`, which says what the machine lacks."""
    device = find_device(settings.device)
    return forecast_of(plan(device, weight, settings, _copies(settings, weight)), weight)


def check_published(settings: ModelSettings) -> None:
    """Raises `ModelError` where this machine could not run the published model, whose weights may be away."""
    plan(find_device(settings.device), PUBLISHED, settings, _copies(settings, PUBLISHED))


def missing_copies(settings: ModelSettings, weight: Footprint) -> int:
    """Bytes of copies that will still be written below DATA_DIR. Raises `ModelError`."""
    if not is_large(weight):
        return 0
    copies = _copies(settings, weight)
    placement = plan(find_device(settings.device), weight, settings, copies)
    return copies.missing(copy_bytes(weight, placement))


def _copies(settings: ModelSettings, weight: Footprint) -> Copies:
    return Copies(settings.data_dir / "cache", settings.max_cache_bytes, None, weight.checkpoints)


def forecast_of(placement: Placement, weight: Footprint) -> Forecast:
    """For a placement that is decided."""
    rest = _rate(placement.device, getattr(torch, placement.dtype))
    products = rest
    if placement.eight_bits:
        products = _rate_in_eight_bits(placement.device, getattr(torch, placement.dtype))
    return Forecast(
        placement,
        peak_bytes(weight, placement),
        page_bytes(weight, placement),
        weight,
        products,
        rest,
        lacks_bfloat16=placement.device.startswith("cuda") and fast_type(placement.device) == "float16",
    )


def chosen_footprint(settings: ModelSettings) -> Footprint:
    """The weight of the model that the settings choose, by its files' headers; raises `ModelError`.

    ControlNet-Union 1.0 stands for the one that will be used, which may not be here yet.
    """
    weight = footprint(resolve_model(settings), None, Files(**replaced_parts(settings)))
    return replace(weight, controlnet=PUBLISHED.controlnet) if is_large(weight) else weight


def _rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second in a product like those of the blocks."""
    tokens = torch.ones(CHUNK, SIDE, dtype=dtype, device=device)
    matrix = torch.ones(SIDE, SIDE, dtype=dtype, device=device)
    if dtype == torch.int8:
        return _timed(lambda: integer_product(tokens, matrix), tokens)
    return _timed(lambda: tokens @ matrix.t(), tokens)


def _rate_in_eight_bits(device: str, dtype: torch.dtype) -> float:
    """The same with rounding, or with widening where a device has no fast integers."""
    tokens = torch.ones(CHUNK, SIDE, dtype=dtype, device=device)
    layer = Int8Linear(*round_rows(torch.ones(SIDE, SIDE, device=device)))
    if in_integers(layer, tokens):
        return _rate(device, torch.int8) / ROUNDING
    return _timed(lambda: layer(tokens), tokens)


def _timed(work: Callable[[], object], tokens: Tensor) -> float:
    def done() -> None:
        work()
        wait(tokens.device)

    return 2 * CHUNK * SIDE * SIDE / seconds(done)
