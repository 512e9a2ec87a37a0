"""The comparison of what a model gives on two paths, which round in other places."""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from models.errors import ModelError
from models.inference.denoise.compilation import WARM_UP

STEP_APART = 2e-2
"""By which share of its norm a step of another path may be away: some times what bfloat16 is."""
STEP_APART_ROUNDED = 5e-2
"""The same in 8 bits, where a last bit of bfloat16 rounds tokens to other numbers: 2.4e-2 was seen in fp8."""
PICTURE_APART = 5e-2
"""The same of a decoded picture: in bfloat16 on a CPU 0.5e-2 was seen of the demo model's decoder, and 1.9e-2
of one of the published widths with random weights."""


class Answers(NamedTuple):
    """What a model gives of numbers that are the same each time, in the way that it runs in."""

    steps: list[Tensor]
    pictures: list[Tensor]

    def compare(self, name: str, before: Self, its_name: str, *, rounded: bool) -> None:
        """Raises ModelError where these are others than those of the way before; `rounded`: in 8 bits."""
        for what, found, expected, most in (
            ("step", self.steps, before.steps, STEP_APART_ROUNDED if rounded else STEP_APART),
            ("picture", self.pictures, before.pictures, PICTURE_APART),
        ):
            for one, other in zip(found, expected, strict=True):
                apart = ((one - other).norm() / other.norm()).item()
                # So that what is no number is away too.
                if not apart <= most:
                    raise ModelError(f"A {what} of {name} is {apart:.1e} away from one of {its_name}.")


def picture_of_noise(vae: Any) -> Tensor:
    """What a decoder makes of noise, of the size that it is compiled with: (1, 3, height, width), float32."""
    random = torch.Generator().manual_seed(7)
    latents = torch.randn(1, vae.config.latent_channels, *WARM_UP, generator=random)
    picture: Tensor = vae.decode(latents.to(vae.device, vae.dtype)).sample
    return picture.float()
