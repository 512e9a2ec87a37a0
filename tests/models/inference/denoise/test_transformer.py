"""The denoising step against diffusers' own models, where those are right, and what it does not run."""

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import ZImageControlNetModel, ZImageTransformer2DModel
from torch import Tensor, nn

from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.pipeline import denoise
from models.inference.denoise.transformer import Control, condition, control_tokens, predict

HEIGHT, WIDTH, CHANNELS = 10, 14, 16


def randomised(model: Any) -> Any:
    """Small random weights, so that no zero or one at initialisation hides a mistake."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return use_own_blocks(model.eval().requires_grad_(False))


def as_diffusers_runs_it(model: Any) -> Any:
    """A model of the same weights, with diffusers' own blocks."""
    theirs = type(model).from_config(model.config)
    theirs.load_state_dict(model.state_dict())
    return theirs.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def transformer() -> ZImageTransformer2DModel:
    return randomised(
        ZImageTransformer2DModel(
            dim=32,
            n_layers=4,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=24,
            axes_dims=[4, 6, 6],
            axes_lens=[64, 32, 32],
        )
    )


@pytest.fixture(scope="module")
def controlnet() -> ZImageControlNetModel:
    return randomised(
        ZImageControlNetModel(control_layers_places=[0, 2], control_in_dim=16, dim=32, n_heads=2)
    )


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {
        "prompt_embeds": torch.randn(19, 24),
        "latents": torch.randn(2, CHANNELS, HEIGHT, WIDTH),
        "control_latents": torch.randn(1, CHANNELS, HEIGHT, WIDTH),
    }


def as_diffusers(latents: Tensor) -> list[Tensor]:
    return list(latents.unsqueeze(2))


def test_step_without_control_equals_diffusers(
    transformer: ZImageTransformer2DModel, inputs: dict[str, Tensor]
) -> None:
    latents = inputs["latents"][:1]
    conditioning = condition(transformer, inputs["prompt_embeds"], HEIGHT, WIDTH)
    ours = predict(transformer, conditioning, latents, 0.3)
    reference = as_diffusers_runs_it(transformer)
    theirs = reference(as_diffusers(latents), torch.tensor([0.3]), [inputs["prompt_embeds"]])[0][0]
    torch.testing.assert_close(ours[0], theirs[:, 0])


def test_controlled_step_equals_diffusers_for_union_1_0(
    transformer: ZImageTransformer2DModel, controlnet: ZImageControlNetModel, inputs: dict[str, Tensor]
) -> None:
    latents, embeds = inputs["latents"][:1], inputs["prompt_embeds"]
    conditioning = condition(transformer, embeds, HEIGHT, WIDTH)
    control = Control(controlnet, control_tokens(transformer, controlnet, inputs["control_latents"]), 0.7)
    ours = predict(transformer, conditioning, latents, 0.3, control)

    reference = as_diffusers_runs_it(transformer)
    theirs_net = ZImageControlNetModel.from_transformer(as_diffusers_runs_it(controlnet), reference)
    time = torch.tensor([0.3])
    with torch.no_grad():
        hints = theirs_net(
            as_diffusers(latents), time, [embeds], as_diffusers(inputs["control_latents"]), 0.7
        )
        theirs = reference(as_diffusers(latents), time, [embeds], controlnet_block_samples=hints)[0][0]
    torch.testing.assert_close(ours[0], theirs[:, 0])
    assert not torch.allclose(ours, predict(transformer, conditioning, latents, 0.3), atol=1e-3)


def test_blocks_that_leave_their_last_sum_to_the_next_give_the_same_bit_for_bit(
    transformer: ZImageTransformer2DModel, controlnet: ZImageControlNetModel, inputs: dict[str, Tensor]
) -> None:
    conditioning = condition(transformer, inputs["prompt_embeds"], HEIGHT, WIDTH)
    control = Control(controlnet, control_tokens(transformer, controlnet, inputs["control_latents"]), 0.7)
    layers = [*transformer.noise_refiner, *transformer.layers, *controlnet.control_noise_refiner]
    told: list[bool] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, __, given: told.append(given["whole"]), with_kwargs=True)
        for layer in layers
    ]
    for branch in (None, control):
        whole = predict(transformer, conditioning, inputs["latents"], 0.3, branch)
        assert all(told)
        told.clear()
        for layer in layers:
            layer.hands_on = True
        handed = predict(transformer, conditioning, inputs["latents"], 0.3, branch)
        for layer in layers:
            layer.hands_on = False
        assert torch.equal(handed, whole)
        # Each stack's last gives whole tokens, and each that a hint is added behind: two of the four layers.
        assert told.count(True) == (2 if branch is None else 5)
        told.clear()
    for hook in hooks:
        hook.remove()


def test_pictures_of_one_batch_are_what_each_is_alone(
    transformer: ZImageTransformer2DModel, controlnet: ZImageControlNetModel, inputs: dict[str, Tensor]
) -> None:
    conditioning = condition(transformer, inputs["prompt_embeds"], HEIGHT, WIDTH)
    control = Control(controlnet, control_tokens(transformer, controlnet, inputs["control_latents"]), 0.7)
    together = predict(transformer, conditioning, inputs["latents"], 0.3, control)
    for picture, latents in zip(together, inputs["latents"], strict=True):
        torch.testing.assert_close(
            picture, predict(transformer, conditioning, latents[None], 0.3, control)[0]
        )


def test_step_runs_nothing_that_was_done_for_the_request_and_no_branch_without_control(
    transformer: ZImageTransformer2DModel, controlnet: ZImageControlNetModel, inputs: dict[str, Tensor]
) -> None:
    conditioning = condition(transformer, inputs["prompt_embeds"], HEIGHT, WIDTH)
    control = Control(controlnet, control_tokens(transformer, controlnet, inputs["control_latents"]), 0.7)
    calls: Counter[str] = Counter()
    watched = {
        "layer": transformer.layers[3],
        "caption": transformer.context_refiner[0],
        "embedder": transformer.cap_embedder,
        "control": controlnet.control_layers[1],
        "control embedder": controlnet.control_all_x_embedder["2-1"],
    }
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, module in watched.items()
    ]
    predict(transformer, conditioning, inputs["latents"][:1], 0.3)
    predict(transformer, conditioning, inputs["latents"][:1], 0.3, control)
    for hook in hooks:
        hook.remove()
    assert calls == {"layer": 2, "control": 1}


def test_modulation_of_all_steps_is_made_once_and_is_that_of_each(
    transformer: ZImageTransformer2DModel, controlnet: ZImageControlNetModel, inputs: dict[str, Tensor]
) -> None:
    conditioning = condition(transformer, inputs["prompt_embeds"], HEIGHT, WIDTH)
    control = Control(controlnet, control_tokens(transformer, controlnet, inputs["control_latents"]), 0.7)
    sigmas, latents = torch.tensor([0.9, 0.7, 0.4, 0.0]), inputs["latents"]
    expected = latents
    for sigma, following in itertools.pairwise(sigmas):
        velocity = -predict(transformer, conditioning, expected, 1 - sigma, control)
        expected = expected + (following - sigma) * velocity
    made: Counter[nn.Module] = Counter()
    hooks = [
        module.register_forward_hook(lambda module, *_: made.update([module]))
        for model in (transformer, controlnet)
        for name, module in model.named_modules()
        if name.endswith(("adaLN_modulation", "t_embedder"))
    ]
    found = denoise(transformer, conditioning, latents, sigmas, lambda *_: None, control)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found, expected)
    assert set(made.values()) == {1}
    assert len(made) == len(hooks)
