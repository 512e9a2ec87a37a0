"""A model as small as one can be whose code is all the code of a whole one: what a trial runs.

It has one layer and one control block of the real widths, each at several places, so that it is compiled to
the same pieces; and the real decoder. The weights are random.
"""

import json
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from torch import Tensor, nn

from models.inference.control.controlnet import Layout, empty_controlnet
from models.inference.denoise.beside import leave_weights_mapped
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.float16 import shrink
from models.inference.denoise.modulation import FACTORS, FIRST
from models.inference.denoise.rounding import EightBits

PLACES = 3
"""Layers: a stack's first, one that takes what another has left and leaves its own, and the last."""
HINTS = Layout("sample", (0, 2), 16, None)
"""A control branch with a first block and one after it."""
STD = 0.02
"""The standard deviation of the random weights. A device multiplies zeros with less power, and so faster."""


@dataclass(frozen=True)
class Trial:
    """What is tried: a model's configurations and types, the numbers of tokens, and the names of paths."""

    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    eight_bits: EightBits | None
    streams: bool
    """True where LoRAs are multiplied beside the weights, as these come and go."""
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any] | None
    """The autoencoder's configuration, where its decoder is compiled with the blocks."""
    vae_dtype: str
    tokens: tuple[int, ...]
    paths: tuple[str, ...]

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Self:
        told = json.loads(text)
        return cls(**told | {"tokens": tuple(told["tokens"]), "paths": tuple(told["paths"])})


class Sample(NamedTuple):
    transformer: Any
    controlnet: Any
    vae: Any | None


class Inputs(NamedTuple):
    """What both blocks take, for one number of tokens."""

    x: Tensor
    branch: Tensor
    rope: Tensor
    factors: Tensor
    """Those of the layer, and then those of the control block."""


def sample(trial: Trial) -> Sample:
    """The model as the server has it: in its types, and on its device."""
    model = _random(trial)
    for part in model[:2]:
        if trial.eight_bits:
            round_blocks(part, trial.eight_bits)
        if trial.dtype == "float16":
            shrink(part)
        if trial.streams:
            leave_weights_mapped(part)
        part.to(trial.device)
    (layer,), (control,) = model.transformer.layers, model.controlnet.control_layers
    model.transformer.noise_refiner.extend(copy(layer) for _ in range(2))
    model.transformer.layers.extend(copy(layer) for _ in range(PLACES - 1))
    later = copy(control)
    # It has what the first has, but for what that one makes of its own input.
    later._modules = {name: part for name, part in control._modules.items() if name != "before_proj"}
    model.controlnet.control_layers.append(later)
    if model.vae is not None:
        model.vae.to(trial.device, memory_format=torch.channels_last)
    return model


def exact_sample(trial: Trial) -> Sample:
    """The same weights in float32, not rounded. A block is on the device while it runs, and no longer."""
    model = _random(trial)

    def bring(block: nn.Module, _: object) -> None:
        block.to(trial.device)

    def take_away(block: nn.Module, *_: object) -> None:
        block.cpu()

    for block in (model.transformer.layers[0], model.controlnet.control_layers[0]):
        block.float()
        block.register_forward_pre_hook(bring)
        block.register_forward_hook(take_away)
    return model


def inputs(trial: Trial, dtype: torch.dtype) -> list[Inputs]:
    """Inputs for each number of tokens, that lie in memory as those of a step do."""
    random = torch.Generator().manual_seed(2)
    dim, heads = trial.transformer["dim"], trial.transformer["n_heads"]
    made = []
    for count in trial.tokens:
        turns = torch.randn(1, count, 1, dim // heads // 2, generator=random)
        x, branch = (torch.randn(1, count, dim, generator=random).to(dtype) for _ in range(2))
        factors = 0.5 + torch.rand(1, FIRST + 2 * FACTORS, dim, generator=random).to(dtype)
        parts = x, branch, torch.stack([turns.cos(), turns.sin()], -1), factors.transpose(0, 1)
        x, branch, rope, factors = (part.to(trial.device) for part in parts)
        made.append(Inputs(x, branch, rope, factors[FIRST:]))
    return made


def answer(model: Sample, given: Inputs) -> Tensor:
    """What a control block and a layer make, in float32."""
    layer, control = model.transformer.layers[0], model.controlnet.control_layers[0]
    hint, _ = control(given.branch, given.x, given.rope, given.factors[FACTORS:])
    made: Tensor = (layer(given.x, given.rope, given.factors[:FACTORS]) + hint).float()
    return made


def _random(trial: Trial) -> Sample:
    """The same weights at every call, in host memory, in the types of the trial."""
    config = {**trial.transformer, "n_layers": 1, "n_refiner_layers": 1}
    with torch.device("meta"):
        transformer = use_own_blocks(ZImageTransformer2DModel.from_config(config))
        vae: Any = AutoencoderKL.from_config(dict(trial.vae)) if trial.vae else None
    controlnet: Any = use_own_blocks(empty_controlnet(HINTS, transformer.config))
    # The caption's refiner is not compiled, and a branch's own has the pieces of a layer.
    transformer.noise_refiner, transformer.context_refiner = nn.ModuleList(), nn.ModuleList()
    controlnet.control_noise_refiner = nn.ModuleList()
    controlnet.control_layers = controlnet.control_layers[:1]
    random = torch.Generator().manual_seed(1)
    for model in (transformer, controlnet):
        _fill(model, getattr(torch, trial.dtype), random)
    if vae is not None:
        del vae.encoder
        _fill(vae, getattr(torch, trial.vae_dtype), random)
    return Sample(transformer, controlnet, vae)


def _fill(model: nn.Module, dtype: torch.dtype, random: torch.Generator) -> None:
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        values = torch.ones(parameter.shape)
        if parameter.dim() > 1:
            values = torch.randn(parameter.shape, generator=random) * STD
        setattr(model.get_submodule(owner), leaf, nn.Parameter(values.to(dtype), requires_grad=False))
    model.eval()
