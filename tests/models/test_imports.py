"""What the environment of PyTorch is before it is imported."""

import os

import pytest

from models.imports import ALLOCATOR, importing

OWN = "backend:cudaMallocAsync"


@pytest.mark.parametrize("own", [{}, *({name: OWN} for name in ALLOCATOR)])
def test_memory_of_a_gpu_is_in_segments_that_grow_unless_somebody_has_set_it_up(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", found := dict(own))
    with importing():
        assert found == (own or {ALLOCATOR[0]: "expandable_segments:True"})
