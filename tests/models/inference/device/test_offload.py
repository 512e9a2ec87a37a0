"""Weights that visit: on the device while used, at home otherwise, the host's own tensors throughout."""

import pytest
import torch
from torch import nn

from models.inference.device.offload import stream, visiting

CPU = torch.device("cpu")


def pointers(module: nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in module.parameters()]


def test_module_visits_within_the_block_and_comes_home_untouched() -> None:
    module = nn.Linear(4, 4)
    home = pointers(module)
    with visiting(module, CPU):
        assert not set(pointers(module)) & set(home)
    assert pointers(module) == home


def test_module_comes_home_after_an_error() -> None:
    module = nn.Linear(4, 4)
    home = pointers(module)
    with pytest.raises(ValueError, match="stop"), visiting(module, CPU):
        raise ValueError("stop")
    assert pointers(module) == home


def test_streamed_blocks_compute_the_same_and_each_visits_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    x = torch.randn(2, 4)
    expected = model(x)
    homes = [pointers(block) for block in model]
    away: list[list[bool]] = []
    stream(model, CPU)
    for block in model:
        block.register_forward_pre_hook(
            lambda *_: away.append([pointers(b) != h for b, h in zip(model, homes, strict=True)])
        )
    assert torch.equal(model(x), expected)
    assert away == [[True, False, False], [False, True, False], [False, False, True]]
    assert [pointers(block) for block in model] == homes


def test_streamed_block_comes_home_when_its_forward_fails() -> None:
    block = nn.Linear(4, 4)
    home = pointers(block)
    stream([block], CPU)
    with pytest.raises(RuntimeError):
        block(torch.randn(2, 5))
    assert pointers(block) == home


def test_change_at_home_is_seen_on_the_next_visit() -> None:
    block = nn.Linear(4, 4, bias=False)
    stream([block], CPU)
    with torch.no_grad():
        block.weight.copy_(torch.eye(4) * 2)
    assert torch.equal(block(torch.ones(1, 4)), torch.full((1, 4), 2.0))
