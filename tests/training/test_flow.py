"""The batched training forward is the server's forward, and the target is what its Euler steps need."""

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel

from models.inference.denoise.transformer import Control, condition, control_tokens, predict
from training import flow
from training.presets import CPU
from training.text_encoder import WIDTH
from training.train_control import build_controlnet


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(0)
    model = flow.build_transformer(CPU)
    torch.nn.init.normal_(model.all_final_layer["2-1"].linear.weight, std=0.1)
    return model.eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)
    prompts = [torch.randn(tokens, WIDTH) for tokens in (9, 32, 20)]
    return torch.randn(3, 16, 12, 22), torch.tensor([1.0, 0.64, 0.3]), prompts


@torch.no_grad()
def test_batched_forward_equals_diffusers_forward_of_each_picture(
    transformer: ZImageTransformer2DModel, batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]
) -> None:
    latents, sigmas, prompts = batch
    apart: Any = ZImageTransformer2DModel.from_config(transformer.config)
    apart.load_state_dict(transformer.state_dict())
    wanted = [
        apart([picture[:, None]], 1 - sigma[None], [prompt]).sample[0][:, 0]
        for picture, sigma, prompt in zip(latents, sigmas, prompts, strict=True)
    ]
    captions = flow.pad_captions(prompts)
    ropes = flow.TableCache(transformer)(captions, latents)
    answer = flow.velocity(transformer, latents, sigmas, captions, ropes)
    torch.testing.assert_close(answer, torch.stack(wanted), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["1.0", "2.1"])
def test_batched_control_equals_the_servers_step_of_each_picture(
    transformer: ZImageTransformer2DModel,
    batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]],
    variant: str,
) -> None:
    latents, sigmas, prompts = batch
    controlnet = build_controlnet(CPU, transformer, variant)
    for name, parameter in controlnet.named_parameters():
        if "after_proj" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    pictures = torch.randn_like(latents)
    wanted = []
    for at, prompt in enumerate(prompts):
        tokens = control_tokens(transformer, controlnet, pictures[at : at + 1])
        shared = condition(transformer, prompt, *latents.shape[-2:])
        step = Control(controlnet, tokens, 0.7)
        wanted.append(predict(transformer, shared, latents[at : at + 1], float(1 - sigmas[at]), step)[0])
    captions = flow.pad_captions(prompts)
    ropes = flow.TableCache(transformer)(captions, latents)
    answer = flow.velocity(transformer, latents, sigmas, captions, ropes, controlnet, pictures, 0.7)
    torch.testing.assert_close(answer, torch.stack(wanted), rtol=1e-4, atol=1e-5)


def test_sampler_steps_at_the_schedulers_noise_levels() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 8, 8).tolist())
    torch.testing.assert_close(flow.step_sigmas(8), scheduler.sigmas)


@torch.no_grad()
def test_untrained_control_branch_changes_nothing(
    transformer: ZImageTransformer2DModel, batch: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]
) -> None:
    latents, sigmas, prompts = batch
    captions = flow.pad_captions(prompts)
    ropes = flow.TableCache(transformer)(captions, latents)
    controlnet = build_controlnet(CPU, transformer, "2.1")
    plain = flow.velocity(transformer, latents, sigmas, captions, ropes)
    controlled = flow.velocity(
        transformer, latents, sigmas, captions, ropes, controlnet, torch.randn_like(latents)
    )
    torch.testing.assert_close(controlled, plain)
