"""Weights as a model in float16 takes them: some multiplied by a factor as they are read."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.inference.denoise.float16 import factor_of
from models.inference.loading.tensors import Shapes, Source


def shrunk(weights: Source, model: nn.Module) -> Source:
    """The weights as this model takes them: themselves, where no layer of it has a factor."""
    factors = {
        f"{name}.{'scale' if hasattr(layer, 'scale') else 'weight'}": factor
        for name, layer in model.named_modules()
        if (factor := factor_of(layer)) != 1
    }
    return Shrunk(weights, factors) if factors else weights


class Shrunk:
    """Another source's weights, those of `factors` multiplied; in 8 bits it is their scale that is."""

    mapped = False

    def __init__(self, weights: Source, factors: Mapping[str, float]) -> None:
        self._weights = weights
        self._factors = factors

    def shapes(self) -> Shapes:
        return self._weights.shapes()

    def read(self, name: str) -> Tensor:
        tensor = self._weights.read(name)
        # Powers of two, in the type of the file: nothing is rounded before float16 does it.
        return tensor * self._factors[name] if name in self._factors else tensor
