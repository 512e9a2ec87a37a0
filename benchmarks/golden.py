"""Check the denoising step and loop against recorded reference numbers: `python -m benchmarks.golden DIR`.

Reads every .safetensors file of DIR (tests/golden/README.md describes them), prints the relative error of
each case, and exits 1 when one is above 1e-4, or when there is nothing to check.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageControlNetModel, ZImageTransformer2DModel
from safetensors import safe_open
from torch import Tensor

from models.inference.control.controlnet import Layout, Refiner, fill_controlnet
from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.pipeline import denoise, noise_levels
from models.inference.denoise.transformer import Conditioning, Control, condition, control_tokens, predict
from models.inference.loading.tensors import Weights, fill

TOLERANCE = 1e-4
"""Norm of the difference over the norm of the reference, float32."""


class Case(NamedTuple):
    """One recorded input and what came of it here."""

    name: str
    error: float


def check_file(path: Path) -> Iterator[Case]:
    """Every case of one file, with its relative error."""
    with safe_open(path, framework="pt") as file:
        facts = {name: json.loads(text) for name, text in file.metadata().items() if text.startswith("{")}
        variant = file.metadata()["variant"]
    transformer, controlnet = _load(path, facts["transformer_config"], _layout(variant, facts["control"]))
    recorded = Weights([path])
    with torch.inference_mode():
        for name in sorted(fact for fact in facts if fact.startswith(("step.", "trajectory."))):
            inputs = {
                part: recorded.read(f"{name}.{part}")
                for part in ("latents", "prompt_embeds", "control_latents")
            }
            latents = inputs["latents"][None]
            conditioning = condition(transformer, inputs["prompt_embeds"], *latents.shape[-2:])
            tokens = control_tokens(transformer, controlnet, inputs["control_latents"][None])
            control = Control(controlnet, tokens, facts[name]["conditioning_scale"])
            run = _step if name.startswith("step.") else _trajectory
            output = run(transformer, conditioning, latents, control, facts[name])[0]
            reference = recorded.read(f"{name}.output")
            yield Case(name, ((output - reference).norm() / reference.norm()).item())


def _step(
    transformer: ZImageTransformer2DModel,
    conditioning: Conditioning,
    latents: Tensor,
    control: Control,
    facts: dict[str, Any],
) -> Tensor:
    return predict(transformer, conditioning, latents, facts["timestep"], control)


def _trajectory(
    transformer: ZImageTransformer2DModel,
    conditioning: Conditioning,
    latents: Tensor,
    control: Control,
    facts: dict[str, Any],
) -> Tensor:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=facts["shift"])
    sigmas = noise_levels(scheduler, facts["num_inference_steps"])
    window = facts["control_start"], facts["control_end"]
    return denoise(transformer, conditioning, latents, sigmas, lambda *_: None, control, *window)


def _layout(variant: str, control: dict[str, Any]) -> Layout:
    """The reference's words for a variant, in ours."""
    refiner: Refiner = None
    if control.get("add_control_noise_refiner"):
        own = control["add_control_noise_refiner_correctly"]
        refiner = "control_noise_refiner" if own else "control_layers"
    return Layout(variant, tuple(control["control_layers_places"]), control["control_in_dim"], refiner)


def _load(
    path: Path, config: dict[str, Any], layout: Layout
) -> tuple[ZImageTransformer2DModel, ZImageControlNetModel]:
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(**config)
    fill(transformer, Weights([path], "transformer."), torch.float32, "cpu", source=path.name)
    use_own_blocks(transformer)
    weights = Weights([path], "controlnet.")
    return transformer, fill_controlnet(weights, layout, config, torch.float32, "cpu", path.name)


def main(folder: Path) -> int:
    """Print a table of every file and case; the exit status."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        print(f"{folder} holds no .safetensors file.", file=sys.stderr)
        return 1
    worst = 0.0
    for path in files:
        for case in check_file(path):
            verdict = "ok" if case.error <= TOLERANCE else "WRONG"
            print(f"{path.name:32} {case.name:16} {case.error:.2e}  {verdict}")
            # A NaN is above every bound.
            worst = max(worst, case.error if case.error == case.error else float("inf"))
    print(f"{len(files)} files, largest relative error {worst:.2e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.golden DIR")
    sys.exit(main(Path(sys.argv[1])))
