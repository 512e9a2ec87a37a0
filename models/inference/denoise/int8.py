"""Matrices in 8 bits and their products in integers: half the memory of 16 bits, 0.6 of the time on a CPU.

A weight has one scale for each of its rows, and a token, while it is multiplied, one of its own: both scales
are taken out of the sums. On a CPU tokens go through in chunks that stay in its cache, so that rounding and
rescaling cost little beside the products and need no compiler.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.inference.denoise.beside import LoraLayer

LARGEST = 127
"""The largest of the 8-bit numbers; -128 is not used, so that zero is the middle."""
CHUNK = 352
"""Tokens at a time on a CPU. Fewer make the products slower; more leave the cache."""
WIDE = 16
"""Columns of the feed-forward's inner tensor that are not rounded: those with the largest values. A few are a
thousand times the others, and with one scale for all of a token nothing would be left of the others."""
LEAST_CUDA_ROWS = 32
"""cuBLAS takes no fewer than 17 rows."""
INTEGER_CAPABILITY = (7, 5)
"""The first compute capability of NVIDIA's with integer matrix units."""


class Rounded(NamedTuple):
    """Tokens in 8 bits: `values` (tokens, width) times `scale` (tokens, 1), and `exact`, as they were."""

    values: Tensor
    scale: Tensor
    exact: Tensor


class RoundedLinear(LoraLayer, ABC):
    """A linear layer without bias, its weight `weight` (out, in), in 8 bits, times `scale` (out, 1), float32.

    `wide`: a few columns of its input are a thousand times the others.
    """

    numbers: torch.dtype

    def __init__(self, weight: Tensor, scale: Tensor, *, wide: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.wide = wide
        self.down = self.up = None
        self._plain: tuple[Tensor, Tensor] | None = None

    @staticmethod
    @abstractmethod
    def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
        """Each row as 8-bit numbers and the factor, float32, that makes them `values` again, (rows, 1)."""

    @classmethod
    def of(cls, layer: nn.Linear, *, wide: bool) -> Self:
        """What a layer becomes; one on the meta device gets its numbers later."""
        if layer.weight.is_meta:
            rows = layer.out_features
            numbers = torch.empty_like(layer.weight, dtype=cls.numbers), torch.empty(rows, 1, device="meta")
        else:
            numbers = cls.round_rows(layer.weight.detach())
        return cls(*numbers, wide=wide)

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def replace(self, weight: Tensor) -> None:
        """Round another weight, and keep the numbers there are for `restore`."""
        self._plain = self._plain or (self.weight.data, self.scale.data)
        device = self.weight.device
        self.weight.data, self.scale.data = (part.to(device) for part in self.round_rows(weight))

    @property
    def changed(self) -> list[Tensor]:
        """What `replace` and `put_beside` have put here."""
        beside = [part for part in (self.down, self.up) if part is not None]
        return [*beside, self.scale] if self._plain is not None else beside

    def restore(self) -> None:
        """Take out what `replace` and LoRAs have changed, bit for bit."""
        self.down = self.up = None
        if self._plain is not None:
            (self.weight.data, self.scale.data), self._plain = self._plain, None

    def beside(self, x: Tensor) -> Tensor | None:
        """What the LoRAs make of tokens (…, in), if there are any."""
        if self.down is None or self.up is None:
            return None
        return F.linear(F.linear(x.to(self.down.dtype), self.down), self.up)


class Int8Linear(RoundedLinear):
    """Whole numbers. Of `wide` input the columns that have the largest values are not rounded."""

    numbers = torch.int8

    @staticmethod
    def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
        return round_rows(values)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (…, in) to (…, out), in the type they have."""
        if in_integers(self, x):
            return project(x, self)[0]
        output = F.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))
        beside = self.beside(x)
        return output if beside is None else output + beside

    def multiply(self, tokens: Tensor) -> Tensor:
        """The product with (tokens, in) as float32; see `multiply_rounded`."""
        if not self.wide or tokens.shape[1] <= 2 * WIDE:
            return self.multiply_rounded(_rounded(tokens))
        columns = tokens.abs().amax(0).topk(WIDE).indices
        wide, rest = tokens[:, columns].float(), tokens.index_fill(1, columns, 0)
        weight = self.weight[:, columns].float().mul_(self.scale)
        sums = self.multiply_rounded(Rounded(*round_rows(rest), tokens))
        return sums.addmm_(wide, weight.t())

    def multiply_rounded(self, tokens: Rounded) -> Tensor:
        sums = integer_product(tokens.values, self.weight).float().mul_(self.scale.t()).mul_(tokens.scale)
        beside = self.beside(tokens.exact)
        return sums if beside is None else sums.add_(beside)


def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as int8 numbers and the factor, float32, that makes them `values` again, (rows, 1)."""
    largest = values.abs().amax(-1, keepdim=True).float().clamp_min_(torch.finfo(torch.float32).tiny)
    whole = values.to(torch.float32, copy=True).mul_(LARGEST / largest).round_()
    return whole.to(torch.int8), largest.div_(LARGEST)


def project(x: Tensor, *layers: Any) -> list[Tensor]:
    """What several linear layers make of the same tokens (…, in), which are rounded once for all."""
    if not all(in_integers(layer, x) for layer in layers):
        return [layer(x) for layer in layers]

    def made(tokens: Tensor) -> Iterator[Tensor]:
        if len(layers) == 1:
            yield layers[0].multiply(tokens)
            return
        rounded = _rounded(tokens)
        for layer in layers:
            yield layer.multiply_rounded(rounded)

    return by_chunks(x, [layer.out_features for layer in layers], made)


def feed_forward(w1: Int8Linear, w2: Int8Linear, w3: Int8Linear, x: Tensor) -> Tensor:
    """`w2(silu(w1(x)) * w3(x))` of tokens (…, in): on a CPU what lies between is never whole in memory."""

    def made(tokens: Tensor) -> Iterator[Tensor]:
        rounded = _rounded(tokens)
        inner = F.silu(w1.multiply_rounded(rounded), inplace=True).mul_(w3.multiply_rounded(rounded))
        yield w2.multiply(inner)

    (output,) = by_chunks(x, [w2.out_features], made)
    return output


def by_chunks(x: Tensor, widths: list[int], work: Callable[[Tensor], Iterator[Tensor]]) -> list[Tensor]:
    """What `work` gives of tokens (…, in), one tensor (…, width) for each of `widths`, in the tokens' type.

    On a CPU it gets them in chunks, elsewhere all at once: memory is fast there, short products are slow, and
    compiled code that cut tokens would be good for one number of them alone.
    """
    tokens = x.flatten(0, -2)
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        outputs = [part.to(x.dtype) for part in work(tokens)]
    else:
        outputs = [x.new_empty(len(tokens), width) for width in widths]
        for rows in chunks(tokens):
            made = work(tokens[rows])
            for output in outputs:
                output[rows] = next(made)
    return [output.view(*x.shape[:-1], -1) for output in outputs]


def in_integers(layer: nn.Module, x: Tensor) -> bool:
    """True where a layer is in 8 bits and this device multiplies them faster than it would widen them."""
    if not isinstance(layer, Int8Linear):
        return False
    # A compiler cannot see a clock; what it makes of integers is fast.
    return torch.compiler.is_compiling() or _has_fast_integers(x.device)


@lru_cache
def _has_fast_integers(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= INTEGER_CAPABILITY
    if device.type != "cpu":
        return False
    numbers = torch.ones(CHUNK, 1024, dtype=torch.int8)
    floats = numbers.float()
    return is_faster(lambda: integer_product(numbers, numbers), lambda: floats @ numbers.float().t())


def is_faster(one: Callable[[], Any], other: Callable[[], Any], turns: int = 10) -> bool:
    """True where the least time of `one` is below the least of `other`.

    They take turns, so that what else the machine does meets both: what is decided here decides the numbers
    of a picture as well, which should be the same at every start.
    """
    for work in (one, other):
        work()
    times = [(_seconds(one), _seconds(other)) for _ in range(turns)]
    return min(time for time, _ in times) < min(time for _, time in times)


def seconds(work: Callable[[], Any]) -> float:
    """The least of three, after one that sets things up."""
    work()
    return min(_seconds(work) for _ in range(3))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _rounded(tokens: Tensor) -> Rounded:
    values, scale = round_rows(tokens)
    # A view of what is in memory: a compiler would write the same numbers for each product by itself.
    return Rounded(values.as_strided(values.shape, values.stride()), scale, tokens)


def chunks(tokens: Tensor) -> Iterator[slice]:
    """Rows of (tokens, width) that a processor's cache holds at a time, all about as many."""
    parts = max(round(len(tokens) / CHUNK), 1)
    size = -(-len(tokens) // parts)
    for first in range(0, len(tokens), size):
        yield slice(first, first + size)


def integer_product(values: Tensor, weight: Tensor) -> Tensor:
    """The product (tokens, out), int32, of int8 `values` (tokens, in) and int8 `weight` (out, in)."""
    # Nothing is compiled for a processor.
    if not (values.is_cuda or torch.compiler.is_compiling()) and _saturates():
        return _product_of_halves(values, weight)
    missing = LEAST_CUDA_ROWS - len(values)
    if values.is_cuda and missing > 0:
        return torch._int_mm(F.pad(values, (0, 0, 0, missing)), weight.t())[:-missing]
    return torch._int_mm(values, weight.t())


@lru_cache
def _saturates() -> bool:
    """True on a processor of the time before VNNI, where products of large numbers are silently wrong.

    It adds pairs of products in 16 bits, and cuts off what they do not hold.
    """
    numbers = torch.full((CHUNK, 256), LARGEST, dtype=torch.int8)
    return bool((torch._int_mm(numbers, numbers.t()) != 256 * LARGEST**2).any())


def _product_of_halves(values: Tensor, weight: Tensor) -> Tensor:
    """The same where pairs may not be large: `values` are twice a number of 7 bits, and a last bit.

    A library makes the first factor unsigned, by adding 128; so it is the second that has to be small.
    """
    sums = torch._int_mm(weight, torch.cat([values >> 1, values & 1]).t())
    return sums[:, : len(values)].mul_(2).add_(sums[:, len(values) :]).t()
