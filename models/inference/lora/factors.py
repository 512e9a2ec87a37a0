"""The low-rank factors of LoRAs, kept on the device for as long as there is room."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from models.inference.denoise.upload import upload
from models.inference.lora.delta import Delta
from models.inference.lora.merge import Tensors, low_rank

KEPT_BYTES = 2**30
"""Six LoRAs of rank 32 in 16 bits over all blocks of the published model."""


class Pair(NamedTuple):
    """The factors of one weight's change: `down` (rank, in), and `up` (out, rank) with a file's scale."""

    down: Tensor
    up: Tensor
    largest: float
    """Nothing in their product is larger; NaN or infinite where one of them holds such a number."""


class Factors:
    """The factors of several LoRAs, by sha256, in the type of `beside` and on its device.

    Those that were used longest ago go first.
    """

    def __init__(self, beside: Tensor) -> None:
        self._beside = beside
        self._device = beside.device
        self._kept: OrderedDict[str, dict[str, Pair]] = OrderedDict()

    def get(
        self, sha256: str, deltas: Iterable[Delta], file: Tensors, own: Mapping[str, float]
    ) -> dict[str, Pair]:
        """The pair of each weight that a LoRA has a low-rank change of; `own` is a factor of each weight's.

        Those that are not kept are read from `file`, with one wait for the device.
        """
        if self._device != self._beside.device:
            # The model was moved.
            self._kept.clear()
            self._device = self._beside.device
        if sha256 not in self._kept:
            self._kept[sha256] = self._read(deltas, file, own)
        self._kept.move_to_end(sha256)
        return self._kept[sha256]

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()

    def trim(self) -> None:
        """Let go of what has no room, but for the LoRA used last."""
        sizes = [
            sum(pair.down.nbytes + pair.up.nbytes for pair in pairs.values()) for pairs in self._kept.values()
        ]
        kept = sum(sizes)
        for size in sizes[:-1]:
            if kept <= KEPT_BYTES:
                break
            self._kept.popitem(last=False)
            kept -= size

    def _read(self, deltas: Iterable[Delta], file: Tensors, own: Mapping[str, float]) -> dict[str, Pair]:
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        for delta in deltas:
            if delta.kind == "lora":
                down, up = low_rank(delta, file, own[delta.parameter])
                factors[delta.parameter] = (
                    upload(down.to(self._beside.dtype), self._device),
                    upload(up.to(self._beside.dtype), self._device),
                )
        if not factors:
            return {}
        # A maximum is NaN where anything is.
        heights = torch.stack(
            [part.abs().amax().float() for pair in factors.values() for part in pair]
        ).tolist()
        return {
            name: Pair(down, up, heights[2 * place] * heights[2 * place + 1] * len(down))
            for place, (name, (down, up)) in enumerate(factors.items())
        }
