"""Models of any size with random weights, for measuring: never zeros, which a processor multiplies faster.

A twin is a second model on the same weights, so that two ways to run them can be compared.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from torch import nn

from models.inference.control.controlnet import Layout, empty_controlnet

Model = TypeVar("Model", bound=nn.Module)

STD = 0.02
SEED = 7

PUBLISHED: Mapping[str, Any] = {"axes_lens": [1536, 512, 512]}
"""The published transformer's configuration, where it is not diffusers' default."""


def random_transformer(
    config: Mapping[str, Any], dtype: torch.dtype, device: str, home: str | None = None
) -> Any:
    with torch.device("meta"):
        model = ZImageTransformer2DModel(**{**PUBLISHED, **config})
    return fill_at_random(model, dtype, device, home)


def random_controlnet(layout: Layout, config: Any, dtype: torch.dtype, device: str) -> Any:
    """A control branch for a transformer of this configuration, with hints that are not zero."""
    return fill_at_random(empty_controlnet(layout, config), dtype, device)


def random_vae(widths: tuple[int, ...], dtype: torch.dtype, device: str) -> Any:
    """An autoencoder of the published shape at these widths; the published ones are 128, 256, 512, 512."""
    return fill_at_random(empty_vae(widths), dtype, device)


def empty_vae(widths: tuple[int, ...]) -> Any:
    """The same on the meta device."""
    stages = len(widths)
    with torch.device("meta"):
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * stages,
            up_block_types=("UpDecoderBlock2D",) * stages,
            block_out_channels=widths,
            layers_per_block=2,
            latent_channels=16,
            norm_num_groups=min(32, widths[0]),
            # The side of the tiles that it decodes in where memory is short.
            sample_size=1024,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )


def fill_at_random(model: Model, dtype: torch.dtype, device: str, home: str | None = None) -> Model:
    """Memory and values for a model on the meta device: norms one, everything else drawn on `device`.

    Each tensor then goes to `home`, if that is another place.
    """
    generator = torch.Generator(device).manual_seed(SEED)
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        tensor = torch.empty(parameter.shape, dtype=dtype, device=device)
        if "norm" in name and leaf == "weight":
            tensor.fill_(1)
        else:
            tensor.normal_(std=STD, generator=generator)
        setattr(
            model.get_submodule(owner), leaf, nn.Parameter(tensor.to(home or device), requires_grad=False)
        )
    return model.eval()


def twin(model: Any) -> Any:
    """Another model of the same class on the same tensors."""
    with torch.device("meta"):
        other = type(model).from_config(model.config)
    other.load_state_dict(model.state_dict(), assign=True)
    return other.requires_grad_(False).eval()
