"""The components start where their training needs them, and agree with the classes that serve them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training import autoencoder
from training.flow import draw_sigmas
from training.judge import Verdict, dominant_colour
from training.maps import canny_map, depth_map
from training.measures import depth_agreement, edge_agreement, outline_gradient
from training.optimizers import Average, Optimizers
from training.presets import CPU
from training.render import render
from training.scenes import sample_scene
from training.text_encoder import build, embed
from training.tokens import build_tokenizer
from training.train_decoder import steepness
from training.vocabulary import COLOURS


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    pictures = np.stack([render(sample_scene(seed), 128, 128).image for seed in range(4)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def test_untrained_autoencoder_pools_and_enlarges(pixels: torch.Tensor) -> None:
    vae = autoencoder.build(CPU)
    blurred = F.interpolate(F.avg_pool2d(pixels, 16), scale_factor=16)
    latents = vae.encode(pixels).latent_dist.mode()
    latents[:, 3:] = 0
    out = vae.decode(latents).sample
    assert (out - blurred).square().mean() < 0.25 * blurred.var()


@torch.no_grad()
def test_folding_changes_the_latents_spread_and_not_the_picture(pixels: torch.Tensor) -> None:
    vae = autoencoder.build(CPU).eval()
    before = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    autoencoder.fold_latent_scale(vae, vae.encode(pixels).latent_dist.mode())
    after = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    inside = slice(32, -32)
    torch.testing.assert_close(after[..., inside, inside], before[..., inside, inside], atol=0.05, rtol=0.05)
    spread = autoencoder.encode(vae, pixels).std((0, 2, 3))
    torch.testing.assert_close(spread[:3], torch.ones(3), atol=0.01, rtol=0)
    torch.testing.assert_close(spread[3:], torch.full((13,), 0.6), atol=0.01, rtol=0)


@torch.no_grad()
def test_grown_autoencoder_answers_as_the_smaller_one_did_at_half_the_side(pixels: torch.Tensor) -> None:
    smaller = autoencoder.build(replace(CPU, vae_channels=CPU.vae_channels[1:])).eval()
    half = F.avg_pool2d(pixels, 2)
    latents = smaller.encode(half).latent_dist.mode()
    grown = autoencoder.build(CPU).eval()
    autoencoder.go_on_from(grown, smaller, pixels)
    found = grown.encode(pixels).latent_dist.mode()
    assert (found - latents).square().mean() < 0.01 * latents.var()
    wanted = F.interpolate(smaller.decode(latents).sample, scale_factor=2)
    assert (grown.decode(latents).sample - wanted).square().mean() < 0.05 * wanted.var()


def test_embedding_in_a_batch_is_the_servers_embedding_of_each_prompt() -> None:
    from models.inference.text_encoder import encode_prompt

    prompts = ["a red ball on grass", "under a blue sky, a small blue box on sand", "ein Fisch"]
    tokenizer = build_tokenizer(prompts[:2] * 20)
    encoder = build(len(tokenizer)).eval()
    for prompt, batched in zip(prompts, embed(encoder, tokenizer, prompts), strict=True):
        alone = encode_prompt(encoder, tokenizer, prompt)
        torch.testing.assert_close(batched.float(), alone, atol=0.02, rtol=0.02)


def test_tokenizer_reads_back_any_text() -> None:
    tokenizer = build_tokenizer(["a red ball on grass"] * 4)
    text = "Ein zartes Blümchen, 花 & 3.5"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_noise_levels_lie_where_the_eight_steps_do() -> None:
    torch.manual_seed(0)
    sigmas = draw_sigmas(4000, "cpu")
    assert ((sigmas >= 0) & (sigmas <= 1)).all()
    assert 0.05 < (sigmas == 1).float().mean() < 0.12
    assert 0.7 < float(sigmas.median()) < 0.82


def test_average_follows_and_swaps_back() -> None:
    model = torch.nn.Linear(2, 2)
    average = Average(model, 0.9)
    first = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    average.update(100)
    average.swap()
    torch.testing.assert_close(model.weight, first + 0.1)
    average.swap()
    torch.testing.assert_close(model.weight, first + 1)


def test_optimizers_give_block_matrices_to_muon_and_learn() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4)
    inner = torch.nn.Parameter(torch.zeros(4, 4))
    optimizers = Optimizers([("layers.0.attention.to_q.weight", inner), *layer.named_parameters()])
    target = torch.randn(4, 4)
    for _ in range(200):
        ((inner - target).square().mean() + layer.weight.square().mean()).backward()
        optimizers.step(0.05)
    assert (inner - target).square().mean() < 0.1 * target.square().mean()
    assert layer.weight.abs().max() < 0.1


def test_judge_answers_classes_and_maps() -> None:
    logits, maps = Verdict()(torch.zeros(2, 3, 128, 128))
    assert logits.shape == (2, 8)
    assert maps.shape == (2, 20, 32, 32)


def test_measures_of_a_render_against_its_own_maps_are_full() -> None:
    rendering = render(sample_scene(4, pairs=0), 128, 128)
    assert edge_agreement(rendering.image, canny_map(rendering.image)) == pytest.approx(1)
    maps = np.zeros((20, 32, 32), np.float32)
    maps[1] = rendering.depth.reshape(32, 4, 32, 4).mean((1, 3))
    assert depth_agreement(maps, depth_map(rendering)) == pytest.approx(1)
    outline = rendering.masks.any(0).reshape(32, 4, 32, 4).mean((1, 3)).astype(np.float32) * 8 - 4
    named = sample_scene(4, pairs=0).things[0].colour
    assert list(COLOURS)[dominant_colour(rendering.image, outline)] == named


def test_moved_outline_costs_the_decoder_less_than_a_hazy_one() -> None:
    sharp = torch.full((1, 3, 32, 32), -1.0)
    sharp[..., 16:] = 1
    haze = F.avg_pool2d(F.pad(sharp, (2, 2, 2, 2), mode="replicate"), 5, 1)
    aside = torch.full_like(sharp, -1.0)
    aside[..., 17:] = 1
    moved, hazy = ((steepness(other) - steepness(sharp)).abs().mean() for other in (aside, haze))
    assert moved < 0.6 * hazy


def test_blurred_picture_is_less_steep_at_its_outline() -> None:
    rendering = render(sample_scene(4, pairs=0), 256, 256)
    outline = rendering.masks.any(0).reshape(32, 8, 32, 8).mean((1, 3)).astype(np.float32) * 8 - 4
    sharp = outline_gradient(rendering.image, outline)
    soft, softer = (
        outline_gradient(np.asarray(cv2.GaussianBlur(rendering.image, (0, 0), sigma), np.uint8), outline)
        for sigma in (1, 3)
    )
    assert softer < 0.3 * sharp < soft < 0.8 * sharp
