"""Weights as a model takes them whose matrices are in 8 bits, rounded one at a time as they are read."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.inference.denoise.int8 import RoundedLinear
from models.inference.loading.tensors import Shapes, Source


def rounded(weights: Source, model: nn.Module) -> Source:
    """The weights as this model takes them: itself, where it has no layer in 8 bits."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, RoundedLinear)}
    return Rounded(weights, layers) if layers else weights


class Rounded:
    """Another source's weights; of each of `layers` there are `NAME.weight` in 8 bits and `NAME.scale`."""

    mapped = False

    def __init__(self, weights: Source, layers: Mapping[str, RoundedLinear]) -> None:
        self._weights = weights
        self._layers = layers
        self._last: tuple[str, Tensor, Tensor] | None = None

    def shapes(self) -> Shapes:
        shapes = dict(self._weights.shapes())
        for layer in self._layers:
            if f"{layer}.weight" in shapes:
                shapes[f"{layer}.scale"] = (shapes[f"{layer}.weight"][0], 1)
        return shapes

    def read(self, name: str) -> Tensor:
        layer, _, leaf = name.rpartition(".")
        if layer not in self._layers:
            return self._weights.read(name)
        # Rounded once for the two, which are asked for one after the other.
        if self._last is None or self._last[0] != layer:
            self._last = None
            whole = self._weights.read(f"{layer}.weight").float()
            self._last = layer, *self._layers[layer].round_rows(whole)
        return self._last[2] if leaf == "scale" else self._last[1]
