"""Linear layers beside whose weights LoRAs are multiplied.

So the weights may come and go, be read-only, or be in 8 bits."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

Model = TypeVar("Model", bound=nn.Module)


class LoraLayer(nn.Module):
    """A linear layer that has its LoRAs beside its weight.

    They are `down` (rank, in) and `up` (out, rank), in the type of the tokens; without LoRAs both are None.
    """

    weight: Tensor
    down: Tensor | None
    up: Tensor | None

    def put_beside(self, down: Tensor, up: Tensor) -> None:
        """Multiply these factors beside the weight."""
        if len(down) == 1:
            # Code that was compiled for any other rank is not good for this one.
            down, up = F.pad(down, (0, 0, 0, 1)), F.pad(up, (0, 1))
        self.down, self.up = down, up


class MappedLinear(LoraLayer, nn.Linear):
    """A linear layer whose weight is a view of its file."""

    _plain: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (…, in) to (…, out)."""
        output = F.linear(x, self.weight, self.bias)
        if self.down is None or self.up is None:
            return output
        inner = F.linear(x, self.down).flatten(0, -2)
        output.view(-1, self.out_features).addmm_(inner, self.up.t())
        return output

    def replace(self, weight: Tensor) -> None:
        """Use another weight, in memory of its own, and keep the file's for `restore`."""
        self._plain = self.weight.data if self._plain is None else self._plain
        self.weight.data = weight.to(self._plain.dtype).to(self._plain.device)

    @property
    def changed(self) -> list[Tensor]:
        """What `replace` and `put_beside` have put here."""
        beside = [part for part in (self.down, self.up) if part is not None]
        return beside if self._plain is None else [*beside, self.weight.data]

    def restore(self) -> None:
        """Take out what `replace` and `put_beside` have put here."""
        self.down = self.up = None
        if self._plain is not None:
            self.weight.data, self._plain = self._plain, None


def leave_weights_mapped(model: Model) -> Model:
    """Have LoRAs leave the weights of a model's linear layers as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = MappedLinear
            module.__dict__ |= {"down": None, "up": None}
    return model


@contextmanager
def none_beside(layers: Iterable[LoraLayer]) -> Iterator[None]:
    """Within the block the layers have no LoRAs but those that it puts there; after it, those of before."""
    before = [(layer, layer.down, layer.up) for layer in layers]
    try:
        for layer, _, _ in before:
            layer.down = layer.up = None
        yield
    finally:
        for layer, down, up in before:
            layer.down, layer.up = down, up
