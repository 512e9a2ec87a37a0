"""What the timesteps of a request do to the blocks, made for all steps at once, before the first.

A block multiplies what it norms by factors that depend on the timestep alone (adaLN), so that a step has
nothing to do for them. The weights that they are made from are read once a request, and by nobody else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

FACTORS = 4
"""A block has so many: before and after its attention, before and after its feed-forward."""
FIRST = 2
"""The place of the first block's factors."""
MODULATING = ("attention_norm", "ffn_norm", "adaLN_modulation")
"""Beginnings of the names of the weights of a block that are worked into its factors."""


@dataclass(frozen=True)
class Modulation:
    """The factors of one step, or of each picture's own timestep."""

    numbers: Tensor
    """(2 for the final layer, which are the same, and 4 for each block, 1 or batch, dim)."""
    places: Mapping[nn.Module, int]
    """The place of each block's first factor among them."""

    def of(self, block: nn.Module) -> Tensor:
        """The factors of a block, (4, 1 or batch, dim)."""
        place = self.places[block]
        return self.numbers[place : place + FACTORS]

    def clone(self) -> Self:
        """The factors of one step in memory of their own."""
        # A part of such a tensor as `modulate` gives it: compiled code is good for no other layout.
        (step,) = self.numbers.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        return replace(self, numbers=step[:, None])

    @property
    def final(self) -> Tensor:
        """The factor of the final layer, (1 or batch, 1, dim)."""
        return self.numbers[0][:, None]


def modulate(transformer: Any, controlnet: Any | None, timesteps: Tensor) -> list[Modulation]:
    """The factors at each of `timesteps`, (n,), float32, on the device."""
    numbers, places = _numbers(transformer, controlnet, timesteps)
    return [Modulation(step[:, None], places) for step in numbers]


def modulate_each(transformer: Any, controlnet: Any | None, timesteps: Tensor) -> Modulation:
    """The factors of a step in which each picture has a timestep of its own, (batch,), or all have one."""
    numbers, places = _numbers(transformer, controlnet, timesteps)
    return Modulation(numbers.transpose(0, 1), places)


def passing_weights(block: nn.Module) -> Iterator[nn.Parameter]:
    """The weights that a block itself reads; those of its factors are wanted when it does not run."""
    return (weight for name, weight in block.named_parameters() if not name.startswith(MODULATING))


def _numbers(
    transformer: Any, controlnet: Any | None, timesteps: Tensor
) -> tuple[Tensor, Mapping[nn.Module, int]]:
    """All factors, (n, 2 and 4 for each block, dim), each norm's weight worked in, and the blocks' places."""
    time = transformer.t_embedder(timesteps * transformer.t_scale).to(transformer.x_pad_token.dtype)
    blocks = [*transformer.noise_refiner, *transformer.layers]
    if controlnet is not None:
        blocks += [*(controlnet.control_noise_refiner or ()), *controlnet.control_layers]
    made = torch.stack([block.adaLN_modulation(time) for block in blocks], 1)
    scales, gates = made.view(*made.shape[:2], FACTORS // 2, 2, made.shape[2] // FACTORS).unbind(3)
    norms = [
        norm.weight
        for block in blocks
        for norm in (block.attention_norm1, block.attention_norm2, block.ffn_norm1, block.ffn_norm2)
    ]
    factors = torch.stack([1 + scales, gates.tanh()], 3).flatten(1, 3) * torch.stack(norms)
    (final,) = transformer.all_final_layer.values()
    # The final layer's first: compiled code would be good for factors that begin a tensor, or for others. And
    # twice: with the first block's as far in as they are wide, a compiler would take the one for the other.
    numbers = torch.cat([(1 + final.adaLN_modulation(time))[:, None].expand(-1, FIRST, -1), factors], 1)
    return numbers, {block: FIRST + FACTORS * place for place, block in enumerate(blocks)}
