"""What each cell of a picture shows, and the probe that asks the transformer's middle for it.

Pictures teach a small transformer slowly which shape a word stands for; told what is where, its middle layers
learn it sooner. It is what REPA (Yu et al., 2024) does with a vision model's features, which a renderer need
not guess.
"""

from typing import Any, Final

import numpy as np
import torch
from diffusers import ZImageTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.render import Rendering
from training.scenes import Scene
from training.vocabulary import COLOURS, OBJECTS

CELL: Final = 8
"""Side of a cell, pixels."""
_CELLS: Final = 4
"""Cells along a side of a patch of 32 pixels: the autoencoder's 16 times the transformer's 2."""
_COVER_WEIGHT, _NAME_WEIGHT = 0.5, 0.05
_THING_WEIGHT: Final = 2.0


def cell_labels(scene: Scene, rendering: Rendering) -> NDArray[np.uint8]:
    """Kind and colour, (2, height / 8, width / 8), from 1 in the vocabulary's order; 0 where no thing is."""
    masks = rendering.masks[:, CELL // 2 :: CELL, CELL // 2 :: CELL]
    labels = np.zeros((2, *masks.shape[1:]), np.uint8)
    for thing, mask in zip(scene.things, masks, strict=True):
        labels[0][mask] = 1 + list(OBJECTS).index(thing.kind)
        labels[1][mask] = 1 + list(COLOURS).index(thing.colour)
    return labels


def thing_weights(labels: Tensor, sigmas: Tensor) -> Tensor:
    """Weights of the loss, (B, 1, h, w) and 1 on average, larger on things the less noise there is.

    At much noise where things are is yet to be decided, and weights would decide it.
    """
    cover = F.max_pool2d((labels[:, :1] > 0).float(), 2)
    weights = 1 + _THING_WEIGHT * (1 - sigmas[:, None, None, None]) * cover
    return weights / weights.mean()


class CellProbe(nn.Module):
    """Linear readings of the image tokens after the transformer's middle layer: which of a patch's cells are
    covered by a thing, and the thing's kind and colour.
    """

    def __init__(self, transformer: ZImageTransformer2DModel) -> None:
        super().__init__()
        dim = transformer.config.dim
        self.cover = nn.Linear(dim, _CELLS * _CELLS)
        self.names = nn.ModuleList(nn.Linear(dim, 1 + len(words)) for words in (OBJECTS, COLOURS))
        self._read: Tensor
        transformer.layers[(len(transformer.layers) - 1) // 2].register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _given: Any, tokens: Tensor) -> None:
        self._read = tokens

    def loss(self, labels: Tensor) -> Tensor:
        """Of the last forward, against labels (B, 2, height / 8, width / 8)."""
        cells = labels.long().unflatten(-2, (-1, _CELLS)).unflatten(-1, (-1, _CELLS)).transpose(-3, -2)
        wanted = cells.flatten(2, 3).flatten(-2)
        read = F.rms_norm(self._read[:, : wanted.shape[2]].float(), self._read.shape[-1:])
        cover = F.binary_cross_entropy_with_logits(self.cover(read), (wanted[:, 0] > 0).float())
        shown = wanted.amax(-1)
        there = shown[:, 0] > 0
        names = [
            F.cross_entropy(head(read[there]), shown[:, at][there]) for at, head in enumerate(self.names)
        ]
        return _COVER_WEIGHT * cover + _NAME_WEIGHT * torch.stack(names).sum()
