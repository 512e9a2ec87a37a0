"""Noise, schedule, window and decoding; and the whole pipeline against diffusers' with the same weights."""

import copy
import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImageControlNetModel, ZImageControlNetPipeline, ZImagePipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from models.errors import BadOutput
from models.inference.control.controlnet import load_controlnet
from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.pipeline import (
    decode,
    denoise,
    draw_noise,
    encode_picture,
    noise_levels,
    vary,
)
from models.inference.denoise.transformer import Control, condition, control_tokens
from models.inference.text_encoder import encode_prompt
from models.job import Pixels, is_controlled

PROMPT = "a red ball on a green table"
WIDTH, HEIGHT = 96, 64
STEPS = 8


@pytest.fixture(scope="module")
def theirs(tiny_model: Path) -> Any:
    pipeline = ZImagePipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def parts(theirs: Any) -> Any:
    """Their components, and a transformer of the same weights with our blocks."""
    return SimpleNamespace(
        **theirs.components | {"transformer": use_own_blocks(copy.deepcopy(theirs.transformer))}
    )


@pytest.fixture(scope="module")
def control_picture() -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def ours(
    parts: Any, control: Control | None = None, window: tuple[float, float] = (0.0, 1.0), steps: int = STEPS
) -> Tensor:
    """The latents that our loop makes of `PROMPT`."""
    with torch.inference_mode():
        embeds = encode_prompt(parts.text_encoder, parts.tokenizer, PROMPT)
        conditioning = condition(parts.transformer, embeds, HEIGHT // 8, WIDTH // 8)
        noise = draw_noise(5, 16, HEIGHT // 8, WIDTH // 8)
        sigmas = noise_levels(parts.scheduler, steps)
        return denoise(parts.transformer, conditioning, noise, sigmas, lambda *_: None, control, *window)


def run_theirs(pipe: Any, output_type: str, **options: Any) -> Any:
    return pipe(
        PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=STEPS,
        guidance_scale=0.0,
        latents=draw_noise(5, 16, HEIGHT // 8, WIDTH // 8),
        output_type=output_type,
        **options,
    ).images


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def own_control(parts: Any, tiny_model: Path, picture: Pixels, scale: float) -> Control:
    controlnet, _ = load_controlnet(
        tiny_model / "controlnet.safetensors", parts.transformer.config, torch.float32, "cpu"
    )
    with torch.inference_mode():
        tokens = control_tokens(parts.transformer, controlnet, encode_picture(parts.vae, picture))
    return Control(controlnet, tokens, scale)


def test_whole_pipeline_without_control_equals_diffusers(theirs: Any, parts: Any) -> None:
    latents = ours(parts)
    assert relative(latents, run_theirs(theirs, "latent")) < 1e-4
    picture = run_theirs(theirs, "pil")[0]
    assert np.abs(decode(theirs.vae, latents).astype(int) - np.asarray(picture)).max() <= 1


def test_whole_pipeline_with_union_1_0_on_all_steps_equals_diffusers(
    theirs: Any, parts: Any, tiny_model: Path, control_picture: Pixels
) -> None:
    controlnet = ZImageControlNetModel(control_layers_places=[0, 2], control_in_dim=16, dim=64, n_heads=1)
    controlnet.load_state_dict(load_file(tiny_model / "controlnet.safetensors"))
    pipe = ZImageControlNetPipeline(**theirs.components, controlnet=controlnet)
    pipe.set_progress_bar_config(disable=True)
    reference = run_theirs(
        pipe,
        "latent",
        control_image=Image.fromarray(control_picture),
        controlnet_conditioning_scale=0.8,
    )
    latents = ours(parts, own_control(parts, tiny_model, control_picture, 0.8))
    error = relative(latents, reference)
    assert error < 1e-4
    assert relative(ours(parts), reference) > 0.01


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_n_steps_are_exactly_n_forwards_and_the_branch_runs_inside_its_window_only(
    steps: int, parts: Any, tiny_model: Path, control_picture: Pixels
) -> None:
    control = own_control(parts, tiny_model, control_picture, 0.9)
    calls: Counter[str] = Counter()
    hooks = [
        parts.transformer.layers[-1].register_forward_hook(lambda *_: calls.update(["transformer"])),
        control.controlnet.control_layers[-1].register_forward_hook(lambda *_: calls.update(["control"])),
    ]
    ours(parts, control, (0.0, 0.4), steps)
    for hook in hooks:
        hook.remove()
    assert calls["transformer"] == steps
    assert calls["control"] == {1: 0, 5: 2, 8: 3}[steps]


@pytest.mark.parametrize(
    ("steps", "start", "end", "active"),
    [
        (8, 0.0, 0.4, [0, 1, 2]),
        (8, 0.0, 1.0, list(range(8))),
        (4, 0.25, 0.8, [1, 2]),
        (8, 0.5, 0.5, []),
        (8, 0.0, 0.0, []),
        (5, 0.6, 1.0, [3, 4]),
    ],
)
def test_control_window(steps: int, start: float, end: float, active: list[int]) -> None:
    assert [step for step in range(steps) if is_controlled(step, steps, start, end)] == active


def test_schedule_is_shifted_and_ends_at_zero(theirs: Any) -> None:
    plain = [1 - i / 4 for i in range(4)]
    shifted = [3 * sigma / (1 + 2 * sigma) for sigma in plain]
    assert noise_levels(theirs.scheduler, 4).tolist() == pytest.approx([*shifted, 0.0])


def test_seed_gives_the_same_noise_bytes_everywhere() -> None:
    noise = draw_noise(0, 16, 8, 8)
    assert noise.shape == (1, 16, 8, 8)
    digest = hashlib.sha256(noise.numpy().tobytes()).hexdigest()
    assert digest == "443a9fa4ffb0e2221dbc5b56bec0b8ccb4510a8a94a903e8321dfa3b2d99d55b"


def test_seed_variance_is_noise_on_half_of_the_embedding_of_each_picture() -> None:
    embeds = 3 * torch.randn((40, 2560), generator=torch.Generator().manual_seed(1))
    before = embeds.clone()
    both = vary(embeds, (4, 5), 0.1)
    assert torch.equal(embeds, before)
    for varied, seed in zip(both, (4, 5), strict=True):
        assert torch.equal(varied, vary(embeds, (seed,), 0.1)[0])
        added = (varied - embeds)[varied != embeds]
        assert added.numel() / embeds.numel() == pytest.approx(0.5, abs=0.01)
        assert (added.std() / embeds.std()).item() == pytest.approx(0.1, rel=0.02)
        # Its own numbers, and not those that the picture begins with.
        noise = draw_noise(seed, *embeds.shape, 1)[0, ..., 0]
        assert abs(torch.corrcoef(torch.stack([noise.flatten(), (varied - embeds).flatten()]))[0, 1]) < 0.02
    assert not torch.equal(*both)
    assert vary(embeds.bfloat16(), (4,), 0.1).dtype == torch.bfloat16


def test_seed_variance_of_0_leaves_one_embedding_for_all_as_it_is() -> None:
    embeds = torch.randn(7, 8)
    assert torch.equal(vary(embeds, (4, 5), 0.0), embeds[None])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_output_that_is_no_number_is_bad_output(theirs: Any, value: float) -> None:
    with pytest.raises(BadOutput, match="no number"):
        decode(theirs.vae, torch.full((1, 16, 4, 4), value))


def test_output_that_is_black_all_over_is_bad_output(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bias = torch.nn.Parameter(torch.full((3,), -100.0))
    monkeypatch.setattr(theirs.vae.decoder.conv_out, "bias", bias)
    with pytest.raises(BadOutput, match="black"), torch.inference_mode():
        decode(theirs.vae, torch.zeros(1, 16, 4, 4))
