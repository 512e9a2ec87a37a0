"""Noise that carries a scene's open choices is noise like any other, and the choices can be read off it."""

import numpy as np
import pytest
import torch

from training.coupling import coordinates, coupled_noise
from training.scenes import sample_scene


def test_coordinates_of_scenes_are_standard_normal_and_independent() -> None:
    numbers = np.stack([coordinates(sample_scene(seed)) for seed in range(1500)])
    assert np.abs(numbers.mean(0)).max() < 0.12
    assert np.abs(numbers.std(0) - 1).max() < 0.1
    apart = np.corrcoef(numbers.T) - np.eye(16)
    assert np.abs(apart).max() < 0.12


def test_coordinates_say_where_a_thing_is_and_how_it_is_lit() -> None:
    scenes = [sample_scene(seed, pairs=0) for seed in range(300)]
    numbers = np.stack([coordinates(scene) for scene in scenes])
    middle = np.array([scene.place == "middle" for scene in scenes])
    places = np.array([scene.things[0].x for scene in scenes])
    assert np.corrcoef(numbers[middle, 0], places[middle])[0, 1] > 0.9
    assert ((numbers[:, 5] > 0) == [scene.light > 0 for scene in scenes]).all()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 18)])
def test_noise_carries_its_numbers_and_is_standard_normal(height: int, width: int) -> None:
    torch.manual_seed(0)
    numbers = torch.randn(64, 16)
    noise = coupled_noise(numbers, height, width)
    signs = 1 - 2 * ((torch.arange(height)[:, None] + torch.arange(width)) % 2)
    torch.testing.assert_close(
        (noise * signs).sum((2, 3)) / (height * width) ** 0.5, numbers, atol=1e-4, rtol=0
    )
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
