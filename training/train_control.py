"""The stages that train control branches in the layouts of Union 1.0 and 2.1, with the base frozen."""

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import ZImageControlNetModel, ZImageTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from models.inference.denoise.blocks import use_own_blocks
from training import flow
from training.control_data import ControlShard
from training.optimizers import Average, Optimizers
from training.presets import Preset
from training.progress import Progress, learning_rate
from training.runtime import Runtime
from training.train_base import guided_target, noised

CHANNELS_10: Final = 16
CHANNELS_21: Final = 33
"""16 of the control picture, 1 mask, 16 of a picture to inpaint; the last 17 stay zero here."""
_PEAK: Final = 1.5e-3
_START: Final = 0.5
_CONTROL_GUIDANCE: Final = 2.0
"""The map counts for more than in the data, as the prompt does under guidance."""


def build_controlnet(preset: Preset, transformer: ZImageTransformer2DModel, variant: str) -> Any:
    """An untrained branch, `1.0` or `2.1`, whose blocks start as the base's and whose hints start at zero.

    With both projections zero, as published trainers start, the first would get no gradient until the
    second moved.
    """
    newer = variant == "2.1"
    places = preset.control_places_21 if newer else preset.control_places
    channels = CHANNELS_21 if newer else CHANNELS_10
    net = ZImageControlNetModel(
        control_layers_places=list(places),
        control_refiner_layers_places=[0] if newer else None,
        control_in_dim=channels,
        add_control_noise_refiner="control_noise_refiner" if newer else None,
        dim=preset.dim,
        n_refiner_layers=1,
        n_heads=preset.heads,
        n_kv_heads=preset.heads,
    )
    with torch.no_grad():
        for block, place in zip(net.control_layers, places, strict=True):
            block.load_state_dict(transformer.layers[place].state_dict(), strict=False)
        for block, layer in zip(net.control_noise_refiner, transformer.noise_refiner, strict=True):
            block.load_state_dict(layer.state_dict(), strict=False)
        for name, module in net.named_modules():
            if name.endswith("before_proj"):
                nn.init.eye_(module.weight).mul_(_START)
        embedder, theirs = net.control_all_x_embedder["2-1"], transformer.all_x_embedder["2-1"]
        embedder.weight.zero_().view(preset.dim, 4, channels)[..., :16] = theirs.weight.view(
            preset.dim, 4, 16
        )
        embedder.bias.copy_(theirs.bias)
    return use_own_blocks(net)


def train_control(
    preset: Preset, folder: Path, runtime: Runtime, shards: list[ControlShard],
    transformer: ZImageTransformer2DModel, base: ZImageTransformer2DModel, variant: str,
    start: Path | None,
) -> ZImageControlNetModel:  # fmt: skip
    """The branch trained for the guided `transformer`, which was made from `base`, loaded when it is there
    already; `start` is the file of a branch whose weights it goes on from.
    """
    stage = "control" if variant == "1.0" else "control21"
    finished = folder / f"{stage}.safetensors"
    net = build_controlnet(preset, transformer, variant).to(runtime.device)
    if finished.exists():
        net.load_state_dict(load_file(finished))
        return net.eval()
    if start is not None:
        net.load_state_dict({name: value.float() for name, value in load_file(start).items()})
    torch.manual_seed(4)
    for frozen in (transformer, base):
        frozen.requires_grad_(False)
    optimizers = Optimizers(net.named_parameters())
    average = Average(net, 0.99)
    progress = Progress(
        folder, stage, preset.minutes[stage], {"model": net, "optimizers": optimizers, "average": average}
    )
    tables = flow.TableCache(transformer)
    for fraction in progress.steps():
        shard = shards[progress.step % len(shards)]
        latents, control_latents, captions = shard.batch(preset.batch, runtime.device)
        noisy, sigmas, target = noised(latents)
        ropes = tables(captions, latents)
        with runtime.autocast():
            wanted = guided_target(
                transformer, base, noisy, sigmas, captions, ropes, target, _CONTROL_GUIDANCE
            )
            answer = flow.velocity(transformer, noisy, sigmas, captions, ropes, net, control_latents)
        loss = F.mse_loss(answer, wanted)
        loss.backward()
        optimizers.step(learning_rate(fraction, _PEAK, progress.step, warm_up=20))
        average.update(progress.step)
        progress.record(**{f"loss_{shard.control}": loss.detach()})
    average.swap()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, finished)
    return net.eval()
