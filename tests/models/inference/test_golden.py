"""The denoising step and loop meet the numbers that the checkpoints' authors' own code gave.

tests/golden/README.md describes the recorded files.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageControlNetModel, ZImageTransformer2DModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.inference.control.controlnet import Layout, Refiner, fill_controlnet
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.pipeline import denoise, noise_levels
from models.inference.denoise.rounding import EightBits
from models.inference.denoise.transformer import Conditioning, Control, condition, control_tokens, predict
from models.inference.device.ring import Ring
from models.inference.loading.eight_bits import rounded
from models.inference.loading.tensors import Weights, fill

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(GOLDEN.glob("union-*.safetensors"))
INPAINTING = GOLDEN / "inpainting.safetensors"

TOLERANCE = 1e-4
"""Norm of the difference over the norm of the reference, float32."""

EIGHT_BITS_TOLERANCE: dict[EightBits, float] = {"int8": 0.02, "fp8": 0.06}
"""The same with the blocks' matrices in 8 bits; tests/golden/README.md has what was measured."""


class Case(NamedTuple):
    """One recorded input and what came of it here."""

    name: str
    error: float


def check_file(path: Path, *, eight_bits: EightBits | None = None) -> Iterator[Case]:
    """Every case of one file, with its relative error."""
    with safe_open(path, framework="pt") as file:
        facts = {name: json.loads(text) for name, text in file.metadata().items() if text.startswith("{")}
        variant = file.metadata()["variant"]
    layout = _layout(variant, facts["control"])
    transformer, controlnet = _load(path, facts["transformer_config"], layout, eight_bits=eight_bits)
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
    path: Path, config: dict[str, Any], layout: Layout, *, eight_bits: EightBits | None
) -> tuple[ZImageTransformer2DModel, ZImageControlNetModel]:
    with torch.device("meta"):
        transformer = use_own_blocks(ZImageTransformer2DModel(**config))
    if eight_bits:
        round_blocks(transformer, eight_bits)
    own = rounded(Weights([path], "transformer."), transformer)
    fill(transformer, own, torch.float32, "cpu", source=path.name)
    weights = Weights([path], "controlnet.")
    return transformer, fill_controlnet(
        weights, layout, config, torch.float32, "cpu", path.name, eight_bits=eight_bits
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_case_equals_the_reference(path: Path) -> None:
    errors = {case.name: case.error for case in check_file(path)}
    assert len(errors) == 6
    assert max(errors.values()) < TOLERANCE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_streamed_blocks_give_the_bits_of_resident_ones(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = [case.error for case in check_file(path)]
    genuine = _load

    def streamed(*args: Any, **options: Any) -> tuple[ZImageTransformer2DModel, ZImageControlNetModel]:
        transformer, controlnet = genuine(*args, **options)
        ring = Ring(torch.device("cpu"))
        blocks = [*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers]
        ring.stream(transformer, blocks)
        ring.stream(controlnet, [*controlnet.control_layers, *(controlnet.control_noise_refiner or ())])
        ring.hold(blocks, sum(weight.nbytes for block in blocks for weight in block.parameters()) // 2)
        return transformer, controlnet

    monkeypatch.setattr(f"{__name__}._load", streamed)
    assert [case.error for case in check_file(path)] == resident


@pytest.mark.parametrize("eight_bits", EIGHT_BITS_TOLERANCE)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_eight_bits_are_off_by_what_is_written_down(path: Path, eight_bits: EightBits) -> None:
    errors = {case.name: case.error for case in check_file(path, eight_bits=eight_bits)}
    assert TOLERANCE < max(errors.values()) < EIGHT_BITS_TOLERANCE[eight_bits]


@pytest.mark.parametrize("variant", ["union-2.0", "union-2.1", "union-2.1-lite"])
def test_step_with_a_mask_equals_the_reference(variant: str) -> None:
    path, recorded = GOLDEN / f"{variant}.safetensors", Weights([INPAINTING], f"{variant}.")
    with safe_open(path, framework="pt") as file, safe_open(INPAINTING, framework="pt") as inpainting:
        config, control = (json.loads(file.metadata()[fact]) for fact in ("transformer_config", "control"))
        facts = json.loads(inpainting.metadata()[variant])
    transformer, controlnet = _load(path, config, _layout(variant, control), eight_bits=None)
    latents = recorded.read("latents")[None]
    with torch.inference_mode():
        conditioning = condition(transformer, recorded.read("prompt_embeds"), *latents.shape[-2:])
        tokens = control_tokens(transformer, controlnet, recorded.read("control_latents")[None])
        branch = Control(controlnet, tokens, facts["conditioning_scale"])
        output = _step(transformer, conditioning, latents, branch, facts)[0]
    reference = recorded.read("output")
    assert ((output - reference).norm() / reference.norm()).item() < TOLERANCE


def test_wrong_number_is_noticed(tmp_path: Path) -> None:
    with safe_open(FILES[0], framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["step.1.output"] *= 1.001
    save_file(tensors, tmp_path / "bent.safetensors", metadata)
    wrong = [case.name for case in check_file(tmp_path / "bent.safetensors") if case.error > TOLERANCE]
    assert wrong == ["step.1"]
