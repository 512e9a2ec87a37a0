"""A model loaded on one device: its parts, each where the placement wants it, and control branches in use.

Each part is handed out in a `with` block, within which its weights are on the device.
"""

import gc
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from diffusers import AutoencoderKL, ZImageControlNetModel, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen3ForCausalLM

from models.config import ModelSettings
from models.errors import DeviceBroken, ModelError
from models.inference.control.controlnet import load_controlnet
from models.inference.denoise.compilation import compile_blocks, compile_decoder, keep_code_in, warm_up
from models.inference.device.attention import preferring
from models.inference.device.devices import fast_type, find_device, free_bytes
from models.inference.device.offload import move_all_but, on_device, stream
from models.inference.device.pages import give_up_first
from models.inference.device.placement import ON_DEVICE, Placement, decide, eight_bit_bytes, smaller
from models.inference.device.steps import Steps
from models.inference.device.widening import Widening
from models.inference.loading.components import Components, Files, load_components
from models.inference.loading.copies import Copies, OnBytes
from models.inference.loading.footprint import Footprint, footprint
from models.weights.resolve import replaced_parts

log = logging.getLogger(__name__)


class Branch(NamedTuple):
    """A control checkpoint as it was when it was loaded."""

    path: Path
    mtime_ns: int
    size: int
    controlnet: ZImageControlNetModel


class LoadedModel:
    """One model. It keeps the default control branch loaded, and the one other that was used last."""

    def __init__(
        self,
        components: Components,
        placement: Placement,
        controlnet: Path | None,
        compile_mode: str = "off",
        attention: str = "auto",
        copies: Copies | None = None,
    ) -> None:
        self.placement = placement
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
        self.steps = Steps(self._device)
        self._attention = attention
        self._copies = copies
        self._widening = Widening()
        if self._device.type == "cuda":
            # As cuDNN's convolutions in 16 bits want it; on a CPU it is slower. Not yet tried.
            self._vae.to(memory_format=torch.channels_last)
        # Where weights come and go, code for them would not stay good.
        self._compile_mode = compile_mode if placement.mode in ON_DEVICE else "off"
        self._settle(placement)
        self._compile(self.transformer)
        self._compiled_vae = self._vae if self.is_compiled and self._device.type == "cuda" else None
        if self._compiled_vae is not None:
            compile_decoder(self._compiled_vae)
        self._default = self._load_branch(controlnet) if controlnet else None
        self._other: Branch | None = None

    @classmethod
    def load(
        cls, folder: Path, controlnet: Path | None, settings: ModelSettings, on_copy: OnBytes | None = None
    ) -> Self:
        """Load the model in `folder` as the memory there is allows; `controlnet` is the default branch.

        `on_copy` is told how far a copy of the weights is that is written for the next start.
        Raises `OutOfMemory` before anything is loaded, `CheckpointError` or `ControlNetError` for a bad file.
        """
        device = find_device(settings.device)
        files = Files(**replaced_parts(settings))
        copies = Copies(settings.data_dir / "cache", settings.max_cache_bytes, on_copy)
        placement = plan(device, footprint(folder, controlnet, files), settings, copies)
        if device.startswith("cuda"):
            # The same request gives the same bytes.
            torch.backends.cudnn.deterministic = True
        home = torch.device(device if placement.mode in ON_DEVICE else "cpu")
        components = load_components(
            *(folder, stored_type(placement), home, copies, files),
            eight_bits=placement.eight_bits,
            mapped=placement.mode == "mapped",
        )
        keep_code_in(settings.data_dir / "cache" / "compiled")
        return cls(components, placement, controlnet, settings.compile, settings.attention, copies)

    @property
    def pixels_per_latent(self) -> int:
        """Pixels along each side that one latent stands for."""
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    @property
    def is_compiled(self) -> bool:
        return self._compile_mode != "off"

    @contextmanager
    def text_encoder(self) -> Iterator[Qwen3ForCausalLM]:
        try:
            with self._on_device(self._text_encoder, "text-encoder-offload", "model-offload"):
                yield self._text_encoder
        finally:
            if self.placement.mode == "mapped":
                give_up_first(self._text_encoder)

    @contextmanager
    def denoiser(
        self, controlnet: Path | None
    ) -> Iterator[tuple[ZImageTransformer2DModel, ZImageControlNetModel | None]]:
        """The transformer and, if asked for, the branch of a control checkpoint; raises `ControlNetError`."""
        branch = self._branch(controlnet) if controlnet else None
        with (
            preferring(self._attention),
            self._on_device(self.transformer, "model-offload"),
            self._on_device(branch, "model-offload") if branch is not None else nullcontext(),
        ):
            yield self.transformer, branch

    @contextmanager
    def autoencoder(self) -> Iterator[AutoencoderKL]:
        with self._on_device(self._vae, "model-offload"):
            yield self._vae

    def warm_up(self) -> None:
        """Compile the blocks, if they are to be compiled at all.

        Where that cannot be done the log says why, and pictures are made as without.
        """
        if self._compile_mode == "off":
            return
        try:
            with self.denoiser(self._default.path if self._default else None) as (transformer, controlnet):
                warm_up(transformer, controlnet, self._device, self._compiled_vae)
        except ModelError as error:
            log.warning("%s Until then every step takes longer.", error)
            torch.compiler.set_stance("force_eager")
            self._compile_mode = "off"

    def end_step(self) -> None:
        """Tell of a denoising step that the device was given; what it held in CUDA graphs is free again."""
        self.steps.end()
        if self._compile_mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def free_cache(self) -> None:
        """Give back memory that is kept for reuse, or held by objects that nobody can reach."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def shrink(self) -> bool:
        """Go one placement down; False when this is the last."""
        below = smaller(self.placement)
        if below is None:
            return False
        self.move(below)
        return True

    def move(self, placement: Placement) -> None:
        """Go over to a smaller placement; what leaves the device is in host memory from then on.

        Raises DeviceBroken when that fails half-way, for want of host memory: what is where is unknown then.
        """
        if placement.mode == self.placement.mode:
            self.placement = placement
            self._vae.enable_tiling()
            return
        try:
            self._move(placement)
        except (RuntimeError, MemoryError) as error:
            raise DeviceBroken(
                f"The weights could not be moved ({placement.mode}): {str(error).splitlines()[0]}"
            ) from error

    def _move(self, placement: Placement) -> None:
        branches = [branch.controlnet for branch in (self._default, self._other) if branch]
        leaving = [self._text_encoder, self._vae]
        if placement.mode not in ON_DEVICE:
            leaving += [self.transformer, *branches]
            if self._compile_mode != "off":
                torch.compiler.set_stance("force_eager")
        for module in leaving:
            module.to("cpu")
        self._settle(placement)
        self.placement = placement
        if placement.mode == "block-offload":
            for controlnet in branches:
                self._stream_branch(controlnet)

    def _on_device(self, module: nn.Module, *modes: str) -> AbstractContextManager[None]:
        return on_device(module, self._device) if self.placement.mode in modes else nullcontext()

    def _compile(self, model: nn.Module) -> None:
        if self._compile_mode != "off":
            compile_blocks(model, self._compile_mode)

    def _settle(self, placement: Placement) -> None:
        """Put each part where it stays."""
        if placement.tiled_vae:
            self._vae.enable_tiling()
        match placement.mode:
            case "resident":
                self._text_encoder.to(self._device)  # type: ignore[arg-type]
                self._vae.to(self._device)
            case "text-encoder-offload":
                self._vae.to(self._device)
            case "mapped" if _is_widened(placement):
                self._vae.float()
                text_encoder: Any = self._text_encoder
                words = text_encoder.model.embed_tokens
                self._widening.widen(
                    text_encoder, [*text_encoder.model.layers, text_encoder.lm_head], [words]
                )
                self._widening.widen(self.transformer, _blocks(self.transformer))
            case "block-offload":
                self._vae.to(self._device)
                self._stream(self._text_encoder, self._text_encoder.model.layers)
                self._stream(self.transformer, _blocks(self.transformer))

    def _stream(self, module: nn.Module, blocks: Any) -> None:
        move_all_but(module, blocks, self._device)
        stream(blocks, self._device)

    def _branch(self, path: Path) -> ZImageControlNetModel:
        for known in (self._default, self._other):
            if known and known[:3] == (path, *_stamp(path)):
                return known.controlnet
        # Dropped first: two of the large ones may not fit.
        self._other = None
        self._other = self._load_branch(path)
        return self._other.controlnet

    def _load_branch(self, path: Path) -> Branch:
        mode = self.placement.mode
        home = self._device if mode in ON_DEVICE else torch.device("cpu")
        stamp = _stamp(path)
        controlnet, _ = load_controlnet(
            *(path, self.transformer.config, stored_type(self.placement), home),
            copies=self._copies,
            eight_bits=self.placement.eight_bits,
            mapped=mode == "mapped",
        )
        self._compile(controlnet)
        if mode == "block-offload":
            self._stream_branch(controlnet)
        if _is_widened(self.placement):
            self._widening.widen(controlnet, _control_blocks(controlnet))
        return Branch(path, *stamp, controlnet)

    def _stream_branch(self, controlnet: ZImageControlNetModel) -> None:
        self._stream(controlnet, _control_blocks(controlnet))


def plan(device: str, weight: Footprint, settings: ModelSettings, copies: Copies) -> Placement:
    """Where a model of this weight goes on a device, by what is free there now. Raises `OutOfMemory`."""
    return decide(
        device,
        free_bytes(device),
        weight,
        settings.dtype,
        settings.placement,
        rest=fast_type(device),
        has_copies=copies.can_hold(eight_bit_bytes(weight)),
    )


def stored_type(placement: Placement) -> torch.dtype:
    """The type of the weights that have no 8 bits: widened ones are kept as their files have them."""
    dtype: torch.dtype = torch.bfloat16 if _is_widened(placement) else getattr(torch, placement.dtype)
    return dtype


def _is_widened(placement: Placement) -> bool:
    return placement.mode == "mapped" and placement.dtype == "float32" and not placement.eight_bits


def _blocks(transformer: Any) -> list[nn.Module]:
    return [*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers]


def _control_blocks(controlnet: Any) -> list[nn.Module]:
    return [*controlnet.control_layers, *(controlnet.control_noise_refiner or ())]


def _stamp(path: Path) -> tuple[int, int]:
    """A value that changes when the file does."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size
