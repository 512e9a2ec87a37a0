"""Optimizers for the transformer: Muon for the matrices inside the blocks, AdamW for everything else, and
an average.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Optimizers:
    """Muon and AdamW as one. Learning rates are AdamW's; Muon's update is scaled to match it."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float = 0.01) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in parameters:
            inside = ".attention.to_" in name or ".feed_forward.w" in name
            (matrices if inside and parameter.ndim == 2 else others).append(parameter)
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=decay, fused=True)
        ]
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        self._all = [*matrices, *others]

    def step(self, rate: float) -> None:
        """One step at this learning rate, gradients clipped to norm 1 and then cleared."""
        nn.utils.clip_grad_norm_(self._all, 1.0)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {str(at): part.state_dict() for at, part in enumerate(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for at, part in enumerate(self._parts):
            part.load_state_dict(state[str(at)])


class Average:
    """An exponential moving average of a model's parameters, slower as training goes on."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._values = {
            name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        current = dict(self._model.named_parameters())
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self._values.values()), [current[name].detach() for name in self._values], 1 - decay
        )

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the model's parameters and their average; twice restores both."""
        current = dict(self._model.named_parameters())
        for name, value in self._values.items():
            held = current[name].detach().clone()
            current[name].copy_(value)
            value.copy_(held)

    def state_dict(self) -> dict[str, Tensor]:
        return self._values

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            self._values[name].copy_(value)
