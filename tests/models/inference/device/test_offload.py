"""Offloaded weights are on the device while they are used, and the host's own tensors otherwise."""

import pytest
import torch
from torch import nn

from models.inference.device.offload import on_device, stream

CPU = torch.device("cpu")


def pointers(module: nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in module.parameters()]


def test_module_is_on_the_device_within_the_block_and_back_untouched_after_it() -> None:
    module = nn.Linear(4, 4)
    on_host = pointers(module)
    with on_device(module, CPU):
        assert not set(pointers(module)) & set(on_host)
    assert pointers(module) == on_host


def test_module_is_back_on_the_host_after_an_error() -> None:
    module = nn.Linear(4, 4)
    on_host = pointers(module)
    with pytest.raises(ValueError, match="stop"), on_device(module, CPU):
        raise ValueError("stop")
    assert pointers(module) == on_host


def test_streamed_blocks_compute_the_same_and_each_is_on_the_device_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    x = torch.randn(2, 4)
    expected = model(x)
    on_host = [pointers(block) for block in model]
    away: list[list[bool]] = []
    stream(model, CPU)
    for block in model:
        block.register_forward_pre_hook(
            lambda *_: away.append([pointers(b) != h for b, h in zip(model, on_host, strict=True)])
        )
    assert torch.equal(model(x), expected)
    assert away == [[True, False, False], [False, True, False], [False, False, True]]
    assert [pointers(block) for block in model] == on_host


def test_streamed_block_is_back_on_the_host_when_its_forward_fails() -> None:
    block = nn.Linear(4, 4)
    on_host = pointers(block)
    stream([block], CPU)
    with pytest.raises(RuntimeError):
        block(torch.randn(2, 5))
    assert pointers(block) == on_host


def test_change_on_the_host_is_seen_by_the_next_forward() -> None:
    block = nn.Linear(4, 4, bias=False)
    stream([block], CPU)
    with torch.no_grad():
        block.weight.copy_(torch.eye(4) * 2)
    assert torch.equal(block(torch.ones(1, 4)), torch.full((1, 4), 2.0))
