"""A model loaded on one device: its parts, each where the placement wants it, and control branches in use.

Each part is handed out in a `with` block, within which its weights are on the device.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, ZImageControlNetModel, ZImageTransformer2DModel
from torch import Tensor
from transformers import Qwen3ForCausalLM

from models.config import ModelSettings
from models.errors import DiskFull, ModelError
from models.inference.control.controlnet import load_controlnet
from models.inference.denoise.beside import leave_weights_mapped
from models.inference.denoise.blocks import blocks_of
from models.inference.denoise.compilation import compile_blocks, compile_decoder, keep_code_in, warm_up
from models.inference.denoise.fp8 import CAPABILITY
from models.inference.denoise.paths import EAGER, FastPath
from models.inference.denoise.transformer import predict
from models.inference.device.advice import decide_or_advise
from models.inference.device.attention import preferring
from models.inference.device.branch import Branch, version_of
from models.inference.device.comparison import Answers, picture_of_noise
from models.inference.device.devices import fast_type, find_device, free_bytes, free_cache, multiplies_fp8
from models.inference.device.host_memory import host_free_bytes, keep_freed_memory
from models.inference.device.pages import give_up_first, leaving_behind
from models.inference.device.placement import SMALL_TILE_SIDE, OnPlan, Placement, held_for, smaller
from models.inference.device.ring import Ring, block_bytes
from models.inference.device.step_graphs import StepGraphs
from models.inference.device.steps import Steps
from models.inference.device.widening import Widening
from models.inference.loading.components import Components, Files, load_components
from models.inference.loading.copies import Copies, OnBytes
from models.inference.loading.footprint import Footprint, footprint
from models.weights.resolve import replaced_parts

QUIET_SECONDS = 600.0
"""After so long without want of memory the model goes back to what was planned for it."""

log = logging.getLogger(__name__)


class LoadedModel:
    """One model. It keeps the default control branch loaded, and the one other that was used last."""

    def __init__(
        self,
        components: Components,
        placement: Placement,
        controlnet: Path | None,
        copies: Copies | None = None,
    ) -> None:
        self.placement = placement
        self.path = EAGER
        """The way in which the blocks run."""
        self.shortages: Counter[str] = Counter()
        """Times the device's memory ran out, by what `out_of_memory` did about it."""
        self.tokenizer = components.tokenizer
        self.scheduler = components.scheduler
        self.transformer = components.transformer
        self.originals = components.stored
        """The transformer's weights as its files have them."""
        self._text_encoder = components.text_encoder
        self._vae = components.vae
        self._device = torch.device(placement.device)
        self._compiles_decoder = self._device.type == "cuda"
        self.steps = Steps(self._device)
        self._copies = copies
        self._widening = Widening()
        self._ring = Ring(self._device)
        self._graphs: StepGraphs | None = None
        self.givers: list[Callable[[], None]] = [self._give_up_graphs]
        """What holds memory of the device that it can do without, or addresses of weights, which may move."""
        self._planned = placement
        self._shrunk_at = 0.0
        self._streams_transformer = placement.held_bytes is not None
        if self._device.type == "cuda":
            # As cuDNN's convolutions in 16 bits want it; on a CPU it is slower. Not yet tried.
            self._vae.to(memory_format=torch.channels_last)
        self._is_mapped = placement.mode == "mapped" or self._streams_transformer
        if self._is_mapped:
            # A LoRA that is multiplied beside them is there wherever they are.
            leave_weights_mapped(self.transformer)
        self._default: Branch | None = None
        self._other: Branch | None = None
        self._settle()
        self._default = self._load_branch(controlnet) if controlnet else None
        self.make_room(0)

    @classmethod
    def load(
        cls,
        folder: Path,
        controlnet: Path | None,
        settings: ModelSettings,
        on_copy: OnBytes | None = None,
        on_plan: OnPlan | None = None,
    ) -> Self:
        """Load the model in `folder` as the memory there is allows; `controlnet` is the default branch.

        Before weights are read `on_plan` is told where they will be, and `on_copy` how far a copy of them is.
        Raises `OutOfMemory` before anything is loaded, `CheckpointError` or `ControlNetError` for a bad file.
        """
        device = find_device(settings.device)
        files = Files(**replaced_parts(settings))
        weight = footprint(folder, controlnet, files)
        copies = Copies(settings.data_dir / "cache", settings.max_cache_bytes, on_copy, weight.checkpoints)
        if device.startswith("cuda"):
            # The same request gives the same bytes.
            torch.backends.cudnn.deterministic = True
        elif device == "cpu":
            keep_freed_memory()
        keep_code_in(settings.data_dir / "cache" / "compiled")

        while True:
            placement = plan(device, weight, settings, copies)
            if on_plan:
                on_plan(placement, weight)
            home = torch.device(device if placement.mode == "resident" else "cpu")
            try:
                components = load_components(
                    *(folder, getattr(torch, placement.stored_dtype), home, copies, files),
                    eight_bits=placement.eight_bits,
                    mapped=placement.mode != "resident",
                )
                model = cls(components, placement, controlnet, copies)
            except DiskFull as error:
                # What was to be mapped would be read into memory that nobody has planned.
                log.warning("%s", error)
                copies.give_up()
                continue
            # Where all is resident another branch goes to the device at once.
            copies.are_counted_on &= placement.mode != "resident"
            return model

    @property
    def pixels_per_latent(self) -> int:
        """Pixels along each side that one latent stands for."""
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    @property
    def is_compiled(self) -> bool:
        return self.path.compiled

    @contextmanager
    def text_encoder(self, *, layer_by_layer: bool = False) -> Iterator[Qwen3ForCausalLM]:
        """The text encoder. `layer_by_layer`: each layer runs once, and its mapped pages leave with it.

        So they are not all there beside the transformer's, as they are for a prompt that is expanded. That
        reads all layers for each token: of a device they have the place of blocks then, until `make_room`.
        """
        self._ring.forget()
        model: Any = self._text_encoder.base_model
        layers = list(model.layers)
        is_held = self._streams_transformer and not layer_by_layer
        try:
            if is_held:
                budget, wanted = self.placement.held_bytes or 0, sum(map(block_bytes, layers))
                self._hold(max(0, budget - wanted))
                self._ring.hold(layers, min(budget, wanted))
            with leaving_behind(layers if layer_by_layer and self.placement.mode == "mapped" else []):
                yield self._text_encoder
        finally:
            if is_held:
                self._ring.hold(layers, 0)
            if self.placement.mode != "resident":
                give_up_first(self._text_encoder)

    @contextmanager
    def denoiser(
        self, controlnet: Path | None
    ) -> Iterator[tuple[ZImageTransformer2DModel, ZImageControlNetModel | None]]:
        """The transformer and, if asked for, the branch of a control checkpoint; raises `ControlNetError`."""
        branch = self._branch(controlnet) if controlnet else None
        # A request that was stopped may have left a block with a slot.
        self._ring.forget()
        with preferring(self.path.attention):
            yield self.transformer, branch

    @contextmanager
    def autoencoder(self, pixels: int) -> Iterator[AutoencoderKL]:
        """For pictures of so many pixels, which it may have to work on in tiles."""
        self._vae.use_tiling = self.is_tiled(pixels)
        if self.placement.whole_pixels == SMALL_TILE_SIDE**2:
            self._vae.tile_sample_min_size = SMALL_TILE_SIDE
            self._vae.tile_latent_min_size = SMALL_TILE_SIDE // self.pixels_per_latent
        yield self._vae

    def is_tiled(self, pixels: int) -> bool:
        return pixels > self.placement.whole_pixels

    def use(self, path: FastPath) -> None:
        """Run the blocks, and on a GPU the decoder, in another way from the next request on.

        What is to be compiled is compiled here, and a step and a picture compared with those before. Raises
        `ModelError` where they are others, and what a compiler raises; the model is in between then:
        `use(EAGER)` mends it. Where it is a captured step that is another, or fails, the path is the same
        without graphs.
        """
        before = self.path
        self._give_up_graphs()
        self._graphs = None
        expected = None if path == EAGER else self._answers()
        self.path = path
        self._compile()
        if expected is None:
            return
        found = self._answers()
        found.compare(path.name, expected, before.name, rounded=self.placement.eight_bits is not None)
        if path.captured:
            self._graphs = StepGraphs(self._device, uses=0)
            # Captured with other numbers, which a graph that reads none of its inputs gives again.
            self._trial_step(seed=8)
            if not all(map(torch.equal, self._trial_step(), found.steps)):
                self._leave_graphs("a captured step is another than the same step as it is compiled")
            elif self._graphs is not None:
                # Nobody draws in the sizes that were tried.
                self._graphs = StepGraphs(self._device)

    def _trial_step(self, seed: int = 7) -> list[Tensor]:
        branch = self._default.version.path if self._default else None
        with self.denoiser(branch) as (transformer, controlnet):
            vae = self._vae if self._decodes_compiled else None
            return warm_up(transformer, controlnet, self._device, vae, self.predict, seed)

    def _answers(self) -> Answers:
        steps = self._trial_step()
        return Answers(steps, [picture_of_noise(self._vae)] if self._compiles_decoder else [])

    def predict(self, *step: Any) -> Tensor:
        """What a step predicts, as `predict` with a `Modulation`; by CUDA graphs where the path has them.

        Where these fail they are left for good, and nothing is lost.
        """
        if self._graphs is not None:
            try:
                captured = self._graphs(*step)
            except torch.OutOfMemoryError:
                self._graphs.give_up()
            except RuntimeError as error:
                self._leave_graphs(str(error).strip().partition("\n")[0])
            else:
                if captured is not None:
                    return captured
        return predict(*step)

    def _leave_graphs(self, reason: str) -> None:
        log.warning("steps run without CUDA graphs from now on: %s", reason)
        self._give_up_graphs()
        self._graphs = None
        self.path = self.path.uncaptured()

    def _give_up_graphs(self) -> None:
        if self._graphs is not None:
            self._graphs.give_up()

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        self.steps.wait()

    def free_cache(self) -> None:
        """Give back what others hold and can do without, and what is kept for reuse: before any `shrink`."""
        for give in self.givers:
            give()
        free_cache()

    def go_back(self) -> None:
        """Have the planned placement again after a while without want of memory."""
        if self.placement != self._planned and time.monotonic() - self._shrunk_at >= QUIET_SECONDS:
            log.info("memory sufficed for a while; going back to %s", self._planned)
            self._place(self._planned)

    def bring_home(self, weights: Iterable[Tensor]) -> None:
        """Have weights of the transformer that stream where they can be changed, until `make_room`."""
        self._ring.bring_home(weights)

    def make_room(self, pixels: int, pictures: int = 1) -> None:
        """Have as many blocks on the device as pictures of so many pixels, denoised together, leave room for.

        It copies what LoRAs have changed since, so it comes after them.
        """
        if not self._streams_transformer:
            return
        widths = self.transformer.config.dim, self._vae.config.block_out_channels[0]
        self._hold(held_for(self.placement, *widths, pixels, pictures))

    def _hold(self, budget: int) -> None:
        left = self._ring.hold(blocks_of(self.transformer), budget)
        if self._default:
            self._ring.hold(self._default.blocks, left)

    def shrink(self, pixels: int, pictures: int = 1) -> bool:
        """Go one placement down for a picture of so many pixels; False when this is the last."""
        below = smaller(self.placement, pixels)
        if below is None:
            return False
        self._shrunk_at = time.monotonic()
        self._place(below)
        self.make_room(pixels, pictures)
        return True

    def _place(self, placement: Placement) -> None:
        before, self.placement = self.placement, placement
        if placement.mode != before.mode:
            try:
                self._settle()
            except BaseException:
                # There is no room any more for what was to come back.
                self.placement = before
                self._settle()
                raise

    @property
    def _decodes_compiled(self) -> bool:
        return self.is_compiled and self._compiles_decoder

    def _compile(self) -> None:
        """Have blocks and decoder compiled when they first run, or not any more, as the path wants."""
        branches = [known.controlnet for known in (self._default, self._other) if known]
        for model in (self.transformer, *branches):
            compile_blocks(model, compiled=self.path.compiled, swiglu=self.path.swiglu)
        compile_decoder(self._vae, compiled=self._decodes_compiled)

    def _settle(self) -> None:
        """Put each part where it stays."""
        text_encoder: Any = self._text_encoder
        layers = list(text_encoder.model.layers)
        match self.placement.mode:
            case "resident" if self._device.type != "cuda":
                self._text_encoder.to(self._device)  # type: ignore[arg-type]
                self._vae.to(self._device)
            case "resident":
                self._vae.to(self._device)
                # They find the way back to the host, should their memory be wanted.
                self._ring.stream(text_encoder, layers)
                self._ring.hold(layers, 2**62)
            case "streamed":
                self._vae.to(self._device)
                self._ring.stream(text_encoder, layers)
                self._ring.hold(layers, 0)
                if self._streams_transformer:
                    self._ring.stream(self.transformer, blocks_of(self.transformer))
            case "mapped" if self.placement.is_widened:
                self._vae.float()
                words = text_encoder.model.embed_tokens
                self._widening.widen(text_encoder, [*layers, text_encoder.lm_head], [words])
                self._widening.widen(self.transformer, blocks_of(self.transformer))

    def _branch(self, path: Path) -> ZImageControlNetModel:
        for known in (self._default, self._other):
            if known and known.version == version_of(path):
                return known.controlnet
        # Dropped first: two of the large ones may not fit.
        self._other = None
        self._other = self._load_branch(path)
        return self._other.controlnet

    def _load_branch(self, path: Path) -> Branch:
        home = torch.device("cpu") if self._streams_transformer else self._device
        version = version_of(path)
        controlnet, _ = load_controlnet(
            *(path, self.transformer.config, getattr(torch, self.placement.stored_dtype), home),
            copies=self._copies,
            eight_bits=self.placement.eight_bits,
            mapped=self._is_mapped,
        )
        if self._is_mapped:
            # No LoRA is for it; but of other layers than the transformer's compiled code would be another.
            leave_weights_mapped(controlnet)
        compile_blocks(controlnet, compiled=self.path.compiled, swiglu=self.path.swiglu)
        branch = Branch(version, controlnet)
        if self._streams_transformer:
            self._ring.stream(controlnet, branch.blocks)
        if self.placement.is_widened:
            self._widening.widen(controlnet, branch.blocks)
        return branch


def plan(device: str, weight: Footprint, settings: ModelSettings, copies: Copies) -> Placement:
    """Decide where a model of this weight goes on a device, by what is free now. Raises `ModelError`."""
    if settings.quantization == "fp8" and not multiplies_fp8(device):
        raise ModelError(
            f"ZTURBO_QUANTIZATION=fp8 needs a GPU of compute capability {'.'.join(map(str, CAPABILITY))} or "
            f"later, which {device} is not: set ZTURBO_QUANTIZATION=int8 or off."
        )
    return decide_or_advise(
        *(device, free_bytes(device), weight, settings.dtype, settings.quantization),
        rest=fast_type(device),
        copies=copies,
        host_bytes=host_free_bytes(),
    )
