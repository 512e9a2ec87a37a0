"""The stages that train the transformer: rectified flow, then a short one that takes guidance into the
weights.
"""

import copy
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from models.inference.denoise.blocks import use_own_blocks
from training import flow
from training.flow import Captions, RopeTables
from training.labels import CellProbe, thing_weights
from training.latents import Shard
from training.optimizers import Average, Optimizers
from training.presets import Preset
from training.progress import Progress, learning_rate
from training.runtime import Runtime
from training.sheet import Sheet

_PEAK: Final = 2e-3
_GUIDED_PEAK: Final = 5e-4
_DROPPED: Final = 0.08
"""Share of samples with the empty prompt, which the guided stage needs."""
_GUIDANCE: Final = 2.5


def drop_captions(captions: Captions, empty: Tensor, share: float) -> Captions:
    """Replaces a share of the captions by the empty prompt's embedding (tokens, WIDTH)."""
    dropped = torch.rand(len(captions.lengths), device=captions.lengths.device) < share
    blank = torch.zeros_like(captions.states[0])
    blank[: len(empty)] = empty
    states = torch.where(dropped[:, None, None], blank, captions.states)
    return Captions(states, torch.where(dropped, len(empty), captions.lengths))


def noised(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents at random noise levels: (noisy, sigmas, the answer that the transformer should give)."""
    sigmas = flow.draw_sigmas(len(latents), str(latents.device))
    noise = torch.randn_like(latents)
    mix = sigmas[:, None, None, None]
    return (1 - mix) * latents + mix * noise, sigmas, latents - noise


@torch.no_grad()
def guided_target(
    transformer: ZImageTransformer2DModel, base: ZImageTransformer2DModel, noisy: Tensor, sigmas: Tensor,
    captions: Captions, ropes: RopeTables, target: Tensor, strength: float = 1.0,
) -> Tensor:  # fmt: skip
    """What the guided transformer should answer once it knows more (a control map, a style): its own answer
    plus `strength` times what the data says beyond the base. The data's answer alone would wash guidance out.
    """
    own = flow.velocity(transformer, noisy, sigmas, captions, ropes)
    return own + strength * (target - flow.velocity(base, noisy, sigmas, captions, ropes))


def shard_for_step(shards: list[Shard], step: int) -> Shard:
    """Each shard in turn, in an order that is random and the same for every run."""
    order = torch.randperm(len(shards), generator=torch.Generator().manual_seed(step // len(shards)))
    return shards[int(order[step % len(shards)])]


def train_base(
    preset: Preset,
    folder: Path,
    runtime: Runtime,
    shards: list[Shard],
    empty: Tensor,
    sheet: Sheet,
    start: Path | None,
) -> ZImageTransformer2DModel:
    """The flow-matched transformer, its weights averaged, loaded when it is there already; `start` is a
    transformer whose weights it goes on from.
    """
    finished = folder / "base"
    if finished.exists():
        return use_own_blocks(ZImageTransformer2DModel.from_pretrained(finished).to(runtime.device))
    torch.manual_seed(2)
    transformer = flow.build_transformer(preset).to(runtime.device)
    if start is not None:
        transformer.load_state_dict(ZImageTransformer2DModel.from_pretrained(start).float().state_dict())
    probe = CellProbe(transformer).to(runtime.device)

    def loss_of(latents: Tensor, labels: Tensor, captions: Captions, ropes: RopeTables) -> Tensor:
        captions = drop_captions(captions, empty.to(runtime.device), _DROPPED)
        noisy, sigmas, target = noised(latents)
        with runtime.autocast():
            answer = velocity(transformer, noisy, sigmas, captions, ropes)
        weights = thing_weights(labels, sigmas)
        return (weights * (answer - target).square()).mean() + probe.loss(labels)

    velocity = runtime.compile(flow.velocity)
    peak = _PEAK if start is None else _PEAK / 2
    _fit(transformer, probe, "base", peak, preset, folder, runtime, shards, loss_of, sheet)
    transformer.save_pretrained(finished)
    # Anew, without the probe's hook.
    return train_base(preset, folder, runtime, shards, empty, sheet, None)


def train_guided(
    preset: Preset, folder: Path, runtime: Runtime, shards: list[Shard], empty: Tensor, sheet: Sheet,
    base: ZImageTransformer2DModel,
) -> ZImageTransformer2DModel:  # fmt: skip
    """The base taught to answer as it would under classifier-free guidance, so that sampling needs none."""
    torch.manual_seed(3)
    teacher = base.eval().requires_grad_(False)
    student = copy.deepcopy(base).train().requires_grad_(True)
    velocity = runtime.compile(flow.velocity)

    def loss_of(latents: Tensor, _labels: Tensor, captions: Captions, ropes: RopeTables) -> Tensor:
        blank = drop_captions(captions, empty.to(runtime.device), 1.0)
        noisy, sigmas, _ = noised(latents)
        with runtime.autocast():
            with torch.no_grad():
                told = velocity(teacher, noisy, sigmas, captions, ropes)
                untold = velocity(teacher, noisy, sigmas, blank, ropes)
            answer = velocity(student, noisy, sigmas, captions, ropes)
        return F.mse_loss(answer, untold + _GUIDANCE * (told - untold))

    _fit(student, nn.Module(), "guided", _GUIDED_PEAK, preset, folder, runtime, shards, loss_of, sheet)
    student.save_pretrained(folder / "transformer")
    return student


def _fit(
    transformer: ZImageTransformer2DModel, probe: nn.Module, stage: str, peak: float, preset: Preset,
    folder: Path, runtime: Runtime, shards: list[Shard], loss_of: Any, sheet: Sheet,
) -> None:  # fmt: skip
    """Trains both for the stage's minutes and leaves the average in the transformer."""
    optimizers = Optimizers([*transformer.named_parameters(), *probe.named_parameters()])
    average = Average(transformer, 0.998)
    progress = Progress(
        folder, stage, preset.minutes[stage],
        {"model": transformer, "probe": probe, "optimizers": optimizers, "average": average},
    )  # fmt: skip
    tables = flow.TableCache(transformer)
    for fraction in progress.steps():
        shard = shard_for_step(shards, progress.step)
        latents, labels, captions = shard.batch(preset.batch, runtime.device)
        loss = loss_of(latents, labels, captions, tables(captions, latents))
        loss.backward()
        optimizers.step(learning_rate(fraction, peak, progress.step, warm_up=50))
        average.update(progress.step)
        progress.record(loss=loss.detach(), samples=progress.step * preset.batch)
        if sheet.due():
            average.swap()
            sheet.write(stage, progress.step, transformer, runtime)
            average.swap()
    average.swap()
    sheet.write(stage, progress.step, transformer, runtime)
