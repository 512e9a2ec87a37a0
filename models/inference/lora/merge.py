"""The arithmetic that adds one LoRA file to one weight, in float32 on the weight's own device."""

from collections.abc import Iterable
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.errors import LoraError
from models.inference.lora.delta import Delta
from models.job import LoraFile


class Tensors(Protocol):
    """What `safe_open` gives, which has no types of its own."""

    def get_tensor(self, name: str) -> Tensor: ...


def open_lora(lora: LoraFile) -> safe_open:
    """The file's tensors, to be read one by one."""
    try:
        return safe_open(lora.path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise LoraError(f'LoRA "{lora.name}" cannot be read any more: {error}.') from error


def low_rank(delta: Delta, file: Tensors, scale: float) -> tuple[Tensor, Tensor]:
    """A `lora` delta's factors: down (rank, in), and up (out, rank) with every scale worked in."""
    rows = slice(*delta.rows) if delta.rows else slice(None)
    up = file.get_tensor(delta.factors["up"])[rows].float() * (scale * _scaling(delta, file))
    return file.get_tensor(delta.factors["down"]).float(), up


def _scaling(delta: Delta, file: Tensors) -> float:
    return delta.scaling if delta.alpha is None else file.get_tensor(delta.alpha).item() / delta.rank


def add_delta(total: Tensor, delta: Delta, file: Tensors, scale: float) -> None:
    """Add `scale` times the delta to `total` in place; `total` is float32 and has the parameter's shape."""

    def factor(name: str) -> Tensor:
        return file.get_tensor(delta.factors[name]).to(total.device).float()

    scale *= _scaling(delta, file)
    rows = slice(*delta.rows) if delta.rows else slice(None)
    if delta.kind == "lora":
        total.addmm_(factor("up")[rows], factor("down"), alpha=scale)
        return
    if delta.kind == "lokr":
        first, second = (
            factor(name) if name in delta.factors else factor(f"{name}_a") @ factor(f"{name}_b")
            for name in ("w1", "w2")
        )
        product = torch.kron(first, second)
    elif delta.kind == "loha":
        product = (factor("hada_w1_a") @ factor("hada_w1_b")) * (factor("hada_w2_a") @ factor("hada_w2_b"))
    else:
        product = factor("diff")
    total.add_(product[rows], alpha=scale)


def all_finite(weights: Iterable[Tensor]) -> bool:
    """True unless a weight holds NaN or infinity: one pass over each, and one wait for the device."""
    extremes = [extreme.float() for weight in weights for extreme in torch.aminmax(weight)]
    # Weights that stream are on the host, others on the device.
    together = [extreme.to(extremes[0].device) for extreme in extremes]
    return not together or bool(torch.stack(together).isfinite().all())


def first_bad_key(deltas: Iterable[Delta], file: Tensors) -> str | None:
    """The first key of a file whose tensor holds NaN or infinity."""
    for delta in deltas:
        for key in (*delta.factors.values(), *([delta.alpha] if delta.alpha else [])):
            if not file.get_tensor(key).isfinite().all():
                return key
    return None
