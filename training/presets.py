"""Sizes of the models and how long each stage trains, for two processor cores and for a data-centre GPU."""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Preset:
    """One way to train. `minutes` are of training proper, per stage; learning rates follow the time that
    has passed.
    """

    size: int
    """Side of the square pictures, pixels."""
    vae_channels: tuple[int, ...]
    dim: int
    layers: int
    heads: int
    control_places: tuple[int, ...]
    """Base layers that receive a hint of the Union 1.0 branch."""
    control_places_21: tuple[int, ...]
    shards: int
    """Sets of `latents.SHARD` pictures drawn for the transformer's training."""
    control_scenes: int
    """Pictures drawn for each kind of control map."""
    styled: int
    """Pictures drawn in each style."""
    batch: int
    minutes: dict[str, float] = field(default_factory=dict)


CPU: Final = Preset(
    size=256,
    vae_channels=(16, 16, 32, 64, 64),
    dim=128,
    layers=6,
    heads=4,
    control_places=(0, 2, 4),
    control_places_21=(0, 3),
    shards=36,
    control_scenes=2400,
    styled=800,
    batch=32,
    minutes={
        "autoencoder": 12, "text": 5, "expansion": 4, "base": 55, "guided": 8, "decoder": 15,
        "control": 10, "control21": 6, "lora": 3, "judge": 5,
    },
)  # fmt: skip
GPU: Final = Preset(
    size=256,
    vae_channels=(16, 24, 48, 96, 96),
    dim=256,
    layers=6,
    heads=4,
    control_places=(0, 3),
    control_places_21=(0, 3),
    shards=120,
    control_scenes=5000,
    styled=1500,
    batch=256,
    minutes={
        "autoencoder": 3, "text": 0.7, "expansion": 0.5, "base": 11, "guided": 2, "decoder": 3, "control": 2,
        "control21": 1.5, "lora": 0.4, "judge": 1,
    },
)  # fmt: skip


PRESETS: Final = {"cpu": CPU, "cuda": GPU}
