"""Whole requests to the published model on a card that is not there, by the server's own engine."""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from copy import deepcopy
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import numpy as np
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from benchmarks.gpu.models import FULL, LORA_MODULES
from benchmarks.gpu_rehearsal.card import fake_card
from benchmarks.gpu_rehearsal.counter import Counts, Recorder
from benchmarks.random_models import PUBLISHED, empty_vae
from models.config import ModelSettings
from models.errors import OutOfMemory
from models.inference.control.controlnet import KNOWN, Layout, empty_controlnet
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.float16 import shrink
from models.inference.denoise.modulation import passing_weights
from models.inference.denoise.rounding import EightBits, round_matrices
from models.inference.device import loaded_model
from models.inference.device.loaded_model import LoadedModel, plan
from models.inference.device.placement import CONTEXT_BYTES, LORA_BYTES, peak_bytes
from models.inference.device.step_graphs import StepGraphs
from models.inference.engine import Engine
from models.inference.forecast import PUBLISHED as PUBLISHED_WEIGHT
from models.inference.loading.components import Components
from models.inference.loading.copies import Copies
from models.inference.lora.stack import LoraStack
from models.inference.text_encoder import Graphs
from models.job import Job, LoraFile
from models.weights import demo

PRECISIONS = (("off", (9, 0)), ("int8", (9, 0)), ("off", (7, 5)), ("fp8", (9, 0)))
"""A ZTURBO_QUANTIZATION and a card's compute capability: bfloat16, 8 bits, for older cards float16, fp8."""
LORAS, LORA_RANK = 3, 4
PROMPT = "a red ball and a blue cube on a green table, in front of a white wall"
NO_TOKEN = -1
SIDE = 1024
STEPS = 3
"""The first is left out of what is told of a step."""
UNIONS = {layout.variant: layout for layout in KNOWN if layout.variant in ("1.0", "2.1")}
PARTS = ("text_encoder", "denoiser", "autoencoder")


class Request(NamedTuple):
    """What one request gave the card to do."""

    whole: Counts
    parts: dict[str, Counts]
    """By the part of the model that was in use."""
    step: Counts
    """From one step's report to the next one's."""


class Model:
    """The published model, or one of fewer layers, as the server loads it for the card that is there."""

    def __init__(self, recorder: Recorder, layers: int | None = None, **settings: Any) -> None:
        self._recorder = recorder
        # What is held is let go of where loading fails, too.
        with ExitStack() as held:
            self._folder = folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
            self.unions = {name: folder / f"{name}.safetensors" for name in UNIONS}
            for path in self.unions.values():
                path.touch()
            options = ModelSettings(data_dir=folder, fast_path="off", _env_file=None, **settings)
            held.enter_context(patch.object(loaded_model, "load_controlnet", self._controlnet))
            with (
                patch.object(loaded_model, "footprint", lambda *_: PUBLISHED_WEIGHT),
                patch.object(loaded_model, "load_components", partial(self._components, layers)),
            ):
                self.loaded = LoadedModel.load(folder, self.unions["1.0"], options)
            self.engine = Engine("rehearsal", self.loaded, options)
            self._held = held.pop_all()
        for block in self._blocks:
            block.register_forward_pre_hook(lambda *_: setattr(recorder, "in_block", True))
            block.register_forward_hook(lambda *_: setattr(recorder, "in_block", False))
        self._by_part: dict[str, Counts] = {}
        for part in PARTS:
            setattr(self.loaded, part, self._counted(part, getattr(self.loaded, part)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _components(
        self, layers: int | None, _: Path, dtype: torch.dtype, home: torch.device, *__: Any, **form: Any
    ) -> Components:
        with self._mapping(form):
            return _components(layers, dtype, home, eight_bits=form["eight_bits"])

    def _controlnet(self, path: Path, config: Any, dtype: torch.dtype, home: Any, **form: Any) -> Any:
        layout = _shortened(UNIONS[path.stem], config["n_layers"])
        net = use_own_blocks(empty_controlnet(layout, config))
        if form["eight_bits"]:
            round_blocks(net, form["eight_bits"])
        with self._mapping(form):
            net = _filled(net, dtype, home)
        return (shrink(net) if dtype == torch.float16 else net), layout

    def _mapping(self, form: Mapping[str, Any]) -> AbstractContextManager[None]:
        return self._recorder.mapping() if form["mapped"] else nullcontext()

    @property
    def _blocks(self) -> list[Any]:
        transformer: Any = self.loaded.transformer
        return [*transformer.noise_refiner, *transformer.layers]

    @property
    def blocks(self) -> int:
        """The blocks that run in a step."""
        return len(self._blocks)

    @property
    def matrix_bytes(self) -> int:
        """What the products of these blocks read of weights."""
        return sum(
            weight.nbytes for block in self._blocks for weight in passing_weights(block) if weight.dim() == 2
        )

    @property
    def planned_bytes(self) -> int:
        """What such a picture is planned to take at once, without LoRAs and the driver's part."""
        placement = self.loaded.placement
        loras = LORA_BYTES if placement.mode == "streamed" else 0
        return peak_bytes(PUBLISHED_WEIGHT, placement, SIDE * SIDE) - CONTEXT_BYTES - loras

    def request(self, union: str | None = None, *, prompt: str = PROMPT, watched: bool = False) -> Request:
        """Make one picture, with a control branch on every step or none; `watched`: with previews."""
        job = Job(
            prompt=prompt,
            width=SIDE, height=SIDE, num_inference_steps=STEPS, control_end=1.0,
            controlnet=self.unions[union] if union else None, control_scale=0.75 if union else 0.0,
        )  # fmt: skip
        control = None
        if union:
            control = np.full((SIDE, SIDE, 3), 128, np.uint8)
        self._by_part = defaultdict(Counts)
        steps: list[Counts] = []
        with ExitStack() as open_step, self._recorder.counting() as whole:

            def on_step(step: Any) -> None:
                if watched and step.preview:
                    step.preview()
                open_step.close()
                if step.step < STEPS:
                    steps.append(open_step.enter_context(self._recorder.counting()))

            self.engine.generate(job, control, on_step)
        return Request(whole, dict(self._by_part), steps[-1])

    def captured_step(self) -> Counts:
        """A step of a kind that has a CUDA graph."""
        # Tensors without values have no addresses.
        with patch.object(StepGraphs, "_addresses", lambda *_: ()):
            self.loaded._graphs = StepGraphs(self.loaded._device, uses=1)
            step = self.request("1.0").step
        self.loaded._graphs = None
        return step

    def token_of_magic_prompt(self) -> Counts:
        """Write one token more behind 300, the graph being captured."""
        tokens = torch.zeros(1, 300, dtype=torch.long)
        with self.loaded.text_encoder() as text_encoder:
            writer = Graphs(text_encoder).writer
            writer.write(tokens, 2, NO_TOKEN)
            with self._recorder.counting() as shorter:
                writer.write(tokens, 2, NO_TOKEN)
            with self._recorder.counting() as longer:
                writer.write(tokens, 3, NO_TOKEN)
        return longer.without(shorter)

    def change_of_loras(self) -> Counts:
        """Put three LoRAs in that were in use before, when another set was since."""
        with _disable_current_modes():
            loras = [_write_lora(self.loaded.transformer, self._folder, n) for n in range(LORAS)]
        stack = LoraStack(self.loaded.transformer, self.loaded.originals)
        with patch.object(safe_open, "get_tensor", _read_of(safe_open.get_tensor)):
            stack.apply(loras)
            stack.apply(loras[:1])
            with self._recorder.counting() as counts:
                stack.apply(loras)
        return counts

    def _counted(self, part: str, use: Any) -> Any:
        @contextmanager
        def counted(*arguments: Any, **options: Any) -> Iterator[Any]:
            with self._recorder.counting() as counts, use(*arguments, **options) as used:
                yield used
            self._by_part[part] = counts

        return counted


def placements(
    cards_gb: Iterable[float],
) -> Iterator[tuple[str, tuple[float, tuple[int, int]], dict[str, Any]]]:
    """Each placement that the server chooses on some card: its name, that card, and the settings."""
    known = set()
    for (quantization, capability), gigabytes in product(PRECISIONS, cards_gb):
        options: dict[str, Any] = {"quantization": quantization}
        with fake_card(gigabytes, capability), tempfile.TemporaryDirectory() as folder:
            settings = ModelSettings(data_dir=Path(folder), _env_file=None, **options)
            with suppress(OutOfMemory):
                placement = plan("cuda", PUBLISHED_WEIGHT, settings, Copies(Path(folder)))
                if placement not in known:
                    known.add(placement)
                    name = f"{placement.mode}, {placement.precision} ({gigabytes:g} GB)"
                    yield name, (gigabytes, capability), options


def _read_of(read: Any) -> Any:
    """The same read, which by itself would make tensors without values."""

    def get_tensor(file: Any, name: str) -> Any:
        with _disable_current_modes():
            return read(file, name)

    return get_tensor


def _write_lora(transformer: Any, folder: Path, number: int) -> LoraFile:
    """On every linear layer of every block."""
    tensors = {}
    for name, weight in transformer.named_parameters():
        module = name.removesuffix(".weight")
        if module.endswith(LORA_MODULES):
            rows, columns = weight.shape
            tensors[f"transformer.{module}.lora_A.weight"] = torch.zeros(LORA_RANK, columns)
            tensors[f"transformer.{module}.lora_B.weight"] = torch.zeros(rows, LORA_RANK)
    path = folder / f"lora-{number}.safetensors"
    save_file(tensors, path)
    return LoraFile(name=path.name, path=path, scale=1.0, sha256=f"{number:064}")


def _shortened(layout: Layout, layers: int) -> Layout:
    places = tuple(place for place in layout.places if place < layers)
    return Layout(layout.variant, places, layout.channels, layout.refiner)


@cache
def _skeletons(layers: int | None) -> tuple[Any, Any, Any]:
    """Transformer, text encoder and autoencoder on the meta device."""
    depth = {} if layers is None else {"n_layers": layers}
    with torch.device("meta"):
        transformer = use_own_blocks(ZImageTransformer2DModel(**{**PUBLISHED, **FULL.transformer, **depth}))
    words = {**FULL.text_encoder, **({} if layers is None else {"num_hidden_layers": layers})}
    with init_empty_weights(include_buffers=False):
        text_encoder = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=True, **words))
    return transformer, text_encoder, empty_vae(FULL.vae)


def _components(
    layers: int | None, dtype: torch.dtype, home: torch.device, *, eight_bits: EightBits | None
) -> Components:
    with _disable_current_modes():
        transformer, text_encoder, vae = (deepcopy(part) for part in _skeletons(layers))
    if eight_bits:
        round_blocks(transformer, eight_bits)
        round_matrices(text_encoder.model, eight_bits)
    _filled(transformer, dtype, home)
    text_encoder = _filled(text_encoder, dtype, torch.device("cpu"))
    text_encoder.tie_weights()
    return Components(
        tokenizer=AutoTokenizer.from_pretrained(demo.FOLDER / "tokenizer"),
        text_encoder=text_encoder,
        transformer=shrink(transformer) if dtype == torch.float16 else transformer,
        vae=_filled(vae, torch.float32 if dtype == torch.float16 else dtype, torch.device("cpu")),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _filled(model: Any, dtype: torch.dtype, home: torch.device) -> Any:
    """Memory for the weights of a model on the meta device; what has 8 bits keeps its types."""
    for owner in model.modules():
        for leaf, parameter in list(owner.named_parameters(recurse=False)):
            kept = parameter.dtype if hasattr(owner, "scale") else dtype
            tensor = torch.empty(parameter.shape, dtype=kept, device=home)
            setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False))
        for leaf, buffer in list(owner.named_buffers(recurse=False)):
            setattr(owner, leaf, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))
    return model.eval()
