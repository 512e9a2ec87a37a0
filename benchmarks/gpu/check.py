"""One denoising step as it is run, against the same step in float32 on the same weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.random_models import twin
from models.inference.control.controlnet import load_controlnet
from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.transformer import Control, condition, control_tokens, predict
from models.inference.device.loaded_model import LoadedModel

TIMESTEP = 0.3
PROMPT_TOKENS = 40
SCALE = 0.75


def step_error(model: LoadedModel, controlnets: Iterable[Path], side: int) -> dict[str, float]:
    """Relative errors: without control against diffusers' own model, with each branch against our step.

    In float32 our step is the reference's, which `tests/models/inference/test_golden.py` checks.
    """
    device, config = model.placement.device, model.transformer.config
    generator = torch.Generator().manual_seed(4)
    latents, pictures = (torch.randn(1, 16, side // 8, side // 8, generator=generator) for _ in range(2))
    embeddings = torch.randn(PROMPT_TOKENS, config["cap_feat_dim"], generator=generator)
    latents, pictures, embeddings = (each.to(device) for each in (latents, pictures, embeddings))

    def step(transformer: Any, branch: Any | None) -> Tensor:
        control = None
        if branch is not None:
            control = Control(branch, control_tokens(transformer, branch, pictures), SCALE)
        conditioning = condition(transformer, embeddings, side // 8, side // 8)
        return predict(transformer, conditioning, latents, TIMESTEP, control)

    exact = twin(model.transformer).float()
    theirs = exact(list(latents.unsqueeze(2)), torch.tensor([TIMESTEP], device=device), [embeddings])
    use_own_blocks(exact)
    errors = {"no control": _relative(step(model.transformer, None)[0], theirs[0][0][:, 0])}
    for path in controlnets:
        branch, layout = load_controlnet(path, config, torch.float32, device)
        with model.denoiser(path) as (transformer, ours):
            errors[f"Union {layout.variant}"] = _relative(step(transformer, ours), step(exact, branch))
    return errors


def _relative(value: Tensor, reference: Tensor) -> float:
    return float(f"{((value - reference).norm() / reference.norm()).item():.1e}")
