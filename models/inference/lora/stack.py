"""LoRAs merged into a transformer's weights in place, and taken out again bit for bit.

A merge costs nothing per denoising step and leaves every weight's address as it was, so compiled code and
graphs stay good. The weights that a set of LoRAs touches are kept as they were, and every set is merged anew
from those copies, by one product for each weight: nothing is ever subtracted. The factors of the LoRAs used
last stay on the device.

Most of a LoRA's changes are smaller than a step of 8 bits. Beside a weight in 8 bits its factors are
multiplied on their own, so that no rounding takes anything from them and a set is changed in no time; a
change without such factors (LoKr, LoHa, whole differences) is added to the weight as its file has it, and
rounded with it. So it is with weights that are mapped, which take memory of their own then, if there is room.
Of weights that stream those on the host are changed: a device has no more than copies of them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.errors import LoraError
from models.inference.denoise.beside import MappedLinear
from models.inference.denoise.compilation import lora_layers
from models.inference.denoise.float16 import factor_of
from models.inference.denoise.int8 import RoundedLinear
from models.inference.device.devices import free_bytes
from models.inference.device.host_memory import host_free_bytes
from models.inference.loading.tensors import Source
from models.inference.lora.delta import Delta
from models.inference.lora.factors import Factors, Pair
from models.inference.lora.merge import Tensors, add_delta, all_finite, first_bad_key, open_lora
from models.inference.lora.plan import LoraPlan, plan_file
from models.job import AppliedLora, LoraFile

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KEPT_PLANS = 32
GPU_RESERVE = 6 * 2**30
"""Bytes of a GPU that the pristine copies leave free: activations and decoding of the largest picture."""

Changes = list[tuple[str, float, Delta]]
"""What the LoRAs of a set do to one weight: their sha256, scale and change."""
FactorsOf = Mapping[str, Mapping[str, Pair]]
"""The factors of each LoRA, by its sha256, and of each weight."""
MergeSet = tuple[tuple[str, float], ...]
"""The sha256 and scale of each LoRA, sorted: their order in a request makes no difference to any bit."""


def inspect(path: Path, transformer: nn.Module, name: str | None = None) -> LoraPlan:
    """What `path` would change in `transformer`, by its header alone; LoraError says why it cannot."""
    shapes = {key: tuple(weight.shape) for key, weight in transformer.named_parameters()}
    return plan_file(path, shapes, name or path.name)


class LoraStack:
    """The LoRAs of one transformer. Not for two threads at once.

    `originals` has the weights before they were rounded, where the transformer is in 8 bits. `bring_home` is
    called with weights before they are changed; what streams is wanted in host memory then.
    """

    def __init__(
        self,
        transformer: nn.Module,
        originals: Source | None = None,
        bring_home: Callable[[Iterable[Tensor]], None] = lambda weights: None,
    ) -> None:
        self._transformer = transformer
        self._originals = originals
        self._bring_home = bring_home
        self._rounded = {
            f"{name}.weight": layer
            for name, layer in transformer.named_modules()
            if isinstance(layer, RoundedLinear | MappedLinear)
        }
        compiled = {layer for layers in lora_layers(transformer) for layer in layers}
        self._compiled = {name for name, layer in self._rounded.items() if layer in compiled}
        self._own = {
            f"{name}.{leaf}" if name else leaf: factor_of(module)
            for name, module in transformer.named_modules()
            for leaf, _ in module.named_parameters(recurse=False)
        }
        """What the weights of each layer are multiplied by, in float16."""
        # Where a block's weights may be on the host until it runs, what is in no block is on the device.
        self._pad = transformer.get_parameter("x_pad_token")
        self._factors = Factors(self._pad)
        self._changed: set[str] = set()
        self._replaced: set[str] = set()
        """Those of the changed ones that have another weight, not only factors beside it."""
        self._plans: dict[str, LoraPlan] = {}
        self._pristine: dict[str, Tensor] = {}
        self._merged: MergeSet | None = ()

    def apply(self, loras: Sequence[LoraFile]) -> tuple[AppliedLora, ...]:
        """Make the weights pristine plus exactly these LoRAs; `apply([])` restores them bit for bit.

        The same set again costs nothing, in whatever order. A LoRA of scale 0 is looked at and not merged.
        LoraError when one of them cannot be applied: then none is.
        """
        plans = [self._plan(lora) for lora in loras]
        wanted = tuple(sorted((lora.sha256, lora.scale) for lora in loras if lora.scale != 0))
        if wanted != self._merged:
            known = {lora.sha256: (lora, plan) for lora, plan in zip(loras, plans, strict=True)}
            self._merge(wanted, known)
        return tuple(
            AppliedLora(
                name=lora.name,
                scale=lora.scale,
                sha256=lora.sha256,
                matched=plan.matched,
                unmatched=plan.unmatched,
                format=plan.format,
            )
            for lora, plan in zip(loras, plans, strict=True)
        )

    def make_room(self) -> None:
        """Have the pristine copies in host memory, where it has room, and read factors anew when wanted."""
        self._factors.clear()
        on_gpu = {name: copy for name, copy in self._pristine.items() if copy.is_cuda}
        if sum(copy.nbytes for copy in on_gpu.values()) < host_free_bytes():
            self._pristine |= {name: copy.cpu() for name, copy in on_gpu.items()}

    def _plan(self, lora: LoraFile) -> LoraPlan:
        plan = self._plans.pop(lora.sha256, None) or inspect(lora.path, self._transformer, lora.name)
        self._plans[lora.sha256] = plan
        if len(self._plans) > KEPT_PLANS:
            del self._plans[next(iter(self._plans))]
        return plan

    @torch.no_grad()
    def _merge(self, wanted: MergeSet, known: Mapping[str, tuple[LoraFile, LoraPlan]]) -> None:
        weights = dict(self._transformer.named_parameters())
        changes: dict[str, Changes] = defaultdict(list)
        for sha256, scale in wanted:
            for delta in known[sha256][1].deltas:
                changes[delta.parameter].append((sha256, scale, delta))
        rounded = {name: changes.pop(name) for name in self._rounded.keys() & changes.keys()}
        self._check_mergeable({name: weights[name] for name in changes})
        replaced = {name for name, deltas in rounded.items() if not _is_low_rank(deltas)}
        changing = changes.keys() | self._pristine.keys() | replaced | self._replaced
        if changing:
            self._bring_home(weights[name] for name in changing)

        self._merged = None  # until the end the weights are a mixture; an exception may come at any line
        try:
            self._restore_rounded()
            self._check_room(weights[name] for name in replaced)
            self._restore(self._pristine.keys() - changes.keys())
            self._keep({name: weights[name] for name in changes.keys() - self._pristine.keys()})
            with ExitStack() as files:
                opened = {sha256: files.enter_context(open_lora(known[sha256][0])) for sha256, _ in wanted}
                factors = {
                    sha256: self._factors.get(sha256, known[sha256][1].deltas, opened[sha256], self._own)
                    for sha256, _ in wanted
                }
                doubtful: list[Tensor] = []
                for name, deltas in changes.items():
                    self._change(weights[name], name, deltas, opened, factors)
                    if not _is_surely_finite(name, deltas, factors, weights[name].dtype):
                        doubtful.append(weights[name])
                for name, deltas in rounded.items():
                    self._change_rounded(name, deltas, opened, factors)
                    if not _is_surely_finite(name, deltas, factors, self._pad.dtype):
                        doubtful += self._rounded[name].changed
                if any(layer.down is not None for layer in self._rounded.values()):
                    self._fill_up()
                if not all_finite(doubtful):
                    raise LoraError(_blame(known.values(), opened))
                self._factors.trim()
        except BaseException:
            self._restore_rounded()
            self._restore(list(self._pristine))
            self._merged = ()
            raise
        self._merged = wanted

    def _check_mergeable(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            if weight.dtype not in DTYPES:
                raise LoraError(
                    f"LoRAs cannot be merged into quantized weights ({name} is stored as {weight.dtype}): "
                    "run the server with weights in bfloat16, float16 or float32."
                )
            if weight.is_meta:
                raise LoraError(
                    f"LoRAs cannot be merged into weights that are not in memory ({name}): "
                    "start the server again."
                )

    def _keep(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights before their first change: beside them, or to host memory where the GPU is short."""
        on_gpu = [weight for weight in weights.values() if weight.is_cuda]
        needed = sum(weight.nbytes for weight in on_gpu) + GPU_RESERVE
        cramped = bool(on_gpu) and free_bytes(str(on_gpu[0].device)) < needed
        for name, weight in weights.items():
            self._pristine[name] = weight.detach().to("cpu" if cramped else weight.device, copy=True)

    def _restore(self, names: Iterable[str]) -> None:
        weights = dict(self._transformer.named_parameters())
        for name in names:
            weights[name].copy_(self._pristine[name])
            del self._pristine[name]

    def _change(
        self, weight: Tensor, name: str, deltas: Changes, files: Mapping[str, Tensors], factors: FactorsOf
    ) -> None:
        """Make a weight its pristine copy and the changes, rounded once."""
        pristine = self._pristine[name].to(weight.device)
        if _is_low_rank(deltas):
            down, up = _together(name, deltas, factors)
            torch.addmm(pristine, up.to(weight), down.to(weight), out=weight)
            return
        total = pristine.to(torch.float32, copy=True)
        for sha256, scale, delta in deltas:
            add_delta(total, delta, files[sha256], scale * self._own[name])
        weight.copy_(total)

    def _change_rounded(
        self, name: str, deltas: Changes, files: Mapping[str, Tensors], factors: FactorsOf
    ) -> None:
        layer, own = self._rounded[name], self._own[name]
        self._changed.add(name)
        if _is_low_rank(deltas):
            layer.put_beside(*_together(name, deltas, factors))
            return
        # Where it is added up soonest; a layer puts it where its weight is.
        device = self._pad.device
        if isinstance(layer, MappedLinear):
            total = layer.weight.to(device, torch.float32, copy=True)
        elif self._originals is None:
            raise LoraError(f"LoRAs cannot be merged into {name}, whose file is not at hand.")
        else:
            total = self._originals.read(name).to(device, torch.float32, copy=True).mul_(own)
        for sha256, scale, delta in deltas:
            add_delta(total, delta, files[sha256], scale * own)
        self._replaced.add(name)
        layer.replace(total)

    def _fill_up(self) -> None:
        """Have zeros beside the others too: compiled code is for LoRAs at all layers of a block, or none."""
        for name in self._compiled:
            layer = self._rounded[name]
            if layer.down is None:
                width, wide = layer.weight.shape
                layer.put_beside(self._pad.new_zeros(1, wide), self._pad.new_zeros(width, 1))
                self._changed.add(name)

    def _restore_rounded(self) -> None:
        for name in self._changed:
            self._rounded[name].restore()
        self._changed.clear()
        self._replaced.clear()

    def _check_room(self, replaced: Iterable[Tensor]) -> None:
        """Raise LoraError where weights in host memory cannot be had a second time."""
        needed, free = sum(weight.nbytes for weight in replaced if not weight.is_cuda), host_free_bytes()
        if needed > free:
            raise LoraError(
                f"LoRAs that are no low-rank products need weights of their own, {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB of memory are free: use LoRAs that have lora_A and lora_B."
            )


def _together(name: str, deltas: Changes, factors: FactorsOf) -> tuple[Tensor, Tensor]:
    """All low-rank changes of one weight as one: down (ranks, in) and up (out, ranks), scales worked in."""
    pairs = [(factors[sha256][name], scale) for sha256, scale, _ in deltas]
    return torch.cat([pair.down for pair, _ in pairs]), torch.cat(
        [pair.up * scale for pair, scale in pairs], 1
    )


def _is_surely_finite(name: str, deltas: Changes, factors: FactorsOf, dtype: torch.dtype) -> bool:
    """True where the factors' largest numbers leave no doubt, so that nobody need look at the weight."""
    if not _is_low_rank(deltas):
        return False
    height = sum(abs(scale) * factors[sha256][name].largest for sha256, scale, _ in deltas)
    # Of the type's range a half is left for the weight itself.
    return height < torch.finfo(dtype).max / 2


def _is_low_rank(deltas: Changes) -> bool:
    return all(delta.kind == "lora" for _, _, delta in deltas)


def _blame(known: Iterable[tuple[LoraFile, LoraPlan]], opened: Mapping[str, safe_open]) -> str:
    """Which LoRA made a weight NaN or infinite."""
    for lora, plan in known:
        key = first_bad_key(plan.deltas, opened[lora.sha256]) if lora.sha256 in opened else None
        if key:
            return f'LoRA "{lora.name}" holds NaN or infinity ("{key}"): download or save it again.'
    return "The LoRAs at these scales make weights too large for the model's number type: use smaller scales."
