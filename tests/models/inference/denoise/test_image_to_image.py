"""Image to image and inpainting meet diffusers' own pipelines with the same weights."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ZImageControlNetInpaintPipeline,
    ZImageControlNetModel,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.pipeline import (
    Kept,
    denoise,
    draw_noise,
    encode_inpainting,
    encode_picture,
    latent_mask,
    mix,
    noise_levels,
)
from models.inference.denoise.transformer import condition
from models.inference.text_encoder import encode_prompt
from models.job import Mask, Pixels, first_step

PROMPT = "a red ball on a green table"
WIDTH, HEIGHT = 96, 64
STEPS, SEED = 8, 5


@pytest.fixture(scope="module")
def theirs(tiny_model: Path) -> Any:
    return ZImagePipeline.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def parts(theirs: Any) -> Any:
    """Their components, and a transformer of the same weights with our blocks."""
    return SimpleNamespace(
        **theirs.components | {"transformer": use_own_blocks(copy.deepcopy(theirs.transformer))}
    )


@pytest.fixture(autouse=True)
def _the_latents_are_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers draws them about it by the seed; here a picture's latents are the same for every seed."""
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda latents, generator=None: latents.mode()
    )


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mask() -> Mask:
    """On the grid of the latents, where diffusers' mask and ours are one."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[16:48, 24:80] = True
    return mask


def as_image(mask: Mask) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def ours(parts: Any, picture: Pixels, strength: float, mask: Mask | None = None) -> Tensor:
    with torch.inference_mode():
        embeds = encode_prompt(parts.text_encoder, parts.tokenizer, PROMPT)
        conditioning = condition(parts.transformer, embeds, HEIGHT // 8, WIDTH // 8)
        noise = draw_noise(SEED, 16, HEIGHT // 8, WIDTH // 8)
        start = encode_picture(parts.vae, picture)
        sigmas = noise_levels(parts.scheduler, STEPS)[first_step(STEPS, strength) :]
        latents = mix(start, noise, sigmas[0].item())
        kept = None if mask is None else Kept(start, noise, latent_mask(mask, 8))
        return denoise(parts.transformer, conditioning, latents, sigmas, lambda *_: None, kept=kept)


def run_theirs(kind: Any, theirs: Any, picture: Pixels, **options: Any) -> Tensor:
    pipe = kind(**theirs.components)
    pipe.set_progress_bar_config(disable=True)
    latents: Tensor = pipe(
        PROMPT,
        image=Image.fromarray(picture),
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=STEPS,
        guidance_scale=0.0,
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="latent",
        **options,
    ).images
    return latents


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("strength", [0.1, 0.6, 1.0])
def test_image_to_image_equals_diffusers(strength: float, theirs: Any, parts: Any, picture: Pixels) -> None:
    reference = run_theirs(ZImageImg2ImgPipeline, theirs, picture, strength=strength)
    assert relative(ours(parts, picture, strength), reference) < 1e-4


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_what_is_kept_is_set_back_after_each_step_as_diffusers_does(
    strength: float, theirs: Any, parts: Any, picture: Pixels, mask: Mask
) -> None:
    reference = run_theirs(
        ZImageInpaintPipeline, theirs, picture, strength=strength, mask_image=as_image(mask)
    )
    latents = ours(parts, picture, strength, mask)
    assert relative(latents, reference) < 1e-4
    assert relative(ours(parts, picture, strength), reference) > 0.01


def test_control_input_of_inpainting_equals_diffusers(theirs: Any, parts: Any, picture: Pixels) -> None:
    """All but the control picture, which it wants and inpainting here has not."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[13:45, 20:77] = True
    controlnet = ZImageControlNetModel(
        control_layers_places=[0, 2],
        control_refiner_layers_places=[0, 1],
        control_in_dim=33,
        add_control_noise_refiner="control_noise_refiner",
        dim=64,
        n_heads=1,
    )
    seen: list[Tensor] = []

    def see(module: object, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen.append(args[3])

    controlnet.register_forward_pre_hook(see, with_kwargs=True)
    pipe = ZImageControlNetInpaintPipeline(**theirs.components, controlnet=controlnet)
    pipe.set_progress_bar_config(disable=True)
    pipe(
        PROMPT,
        image=Image.fromarray(picture),
        mask_image=as_image(mask),
        control_image=Image.fromarray(picture),
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=1,
        guidance_scale=0.0,
        output_type="latent",
    )
    with torch.inference_mode():
        made = encode_inpainting(parts.vae, picture, mask)
    reference = seen[0][:, :, 0]
    assert made.shape == reference.shape == (1, 33, HEIGHT // 8, WIDTH // 8)
    assert torch.equal(made[:, 16], reference[:, 16])
    assert relative(made[:, 17:], reference[:, 17:]) < 1e-5
    assert not made[:, :16].any()


def test_latent_is_redrawn_where_any_of_its_pixels_is() -> None:
    mask = np.zeros((32, 32), np.bool_)
    mask[10, 9:12] = True
    hole = latent_mask(mask, 8)
    assert hole.shape == (1, 1, 4, 4)
    assert hole.nonzero().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("strength", "first"), [(0.0, 8), (0.01, 7), (0.1, 7), (0.125, 7), (0.6, 3), (0.99, 0), (1.0, 0)]
)
def test_strength_says_with_which_step_it_begins(strength: float, first: int) -> None:
    assert first_step(8, strength) == first
