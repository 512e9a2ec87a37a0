"""The engine: a loaded model that turns a job into its pictures.

Importing this module imports torch, so only what loads an engine does so, and late. Everyone else goes by the
protocol `worker.stages.task.Engine`.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from models.config import DEFAULT_MODEL, ModelSettings
from models.inference.control.detectors import Detectors
from models.inference.denoise.pipeline import (
    Kept,
    decode,
    denoise,
    draw_noise,
    encode_inpainting,
    encode_picture,
    latent_mask,
    mix,
    noise_levels,
    vary,
)
from models.inference.denoise.preview import preview
from models.inference.denoise.transformer import Control, condition, control_tokens
from models.inference.denoise.upload import upload
from models.inference.device.loaded_model import LoadedModel
from models.inference.device.out_of_memory import device_errors, fit, fit_batch, loading
from models.inference.fast_path.choice import Choice
from models.inference.forecast import OnForecast, telling
from models.inference.loading.copies import OnBytes
from models.inference.lora.stack import LoraStack
from models.inference.lru import LruCache
from models.inference.stages import Stages
from models.inference.text_encoder import Graphs, encode_prompt, expand_prompt
from models.job import (
    Facts,
    Generated,
    Job,
    KeepGoing,
    Mask,
    OnStage,
    OnStep,
    Pixels,
    Preprocess,
    Start,
    Step,
    go_on,
)
from models.prompt.expansion import Expansion
from models.weights.resolve import REAL, default_controlnet, model_choice, resolve_model

WARM_UP_SIDE = 1024
"""Pixels."""

P = ParamSpec("P")
T = TypeVar("T")


class _Inputs(NamedTuple):
    """What pictures are denoised from, on the device."""

    embeds: Tensor
    control_latents: Tensor | None
    start: Tensor | None
    """Latents of the image that they start from."""
    mask: Mask | None


class Engine:
    """One model on one device. Not for two threads at once; the same job gives the same bytes."""

    def __init__(self, name: str, model: LoadedModel, settings: ModelSettings) -> None:
        self.name = name
        self.device = model.placement.device
        self._model = model
        self.path = Choice(model, settings.data_dir / "cache", settings.fast_path)
        """How the blocks run."""
        self._cache = LruCache(settings.reuse_bytes)
        self._loras = LoraStack(model.transformer, model.originals, model.bring_home)
        self._detectors = Detectors(settings, self.device)
        model.givers += [self._loras.make_room, self._detectors.drop, partial(setattr, self, "_graphs", None)]
        self._graphs: Graphs | None = None
        self._step_seconds = 0.0
        self._decode_seconds = 0.0
        """What the last picture took for each of its pixels."""

    @classmethod
    def load(
        cls,
        settings: ModelSettings,
        on_copy: OnBytes | None = None,
        on_forecast: OnForecast | None = None,
    ) -> Self:
        """Load the model that the settings choose.

        `on_forecast` is told before its weights are read what to expect of a large one, and `on_copy` how far
        a copy of the weights is that is written for the next start.
        Raises `WeightsMissing`, `CheckpointError`, `OutOfMemory`, each with what to do.
        """
        return loading(lambda: cls._load(settings, on_copy, on_forecast))

    @classmethod
    def _load(cls, settings: ModelSettings, on_copy: OnBytes | None, on_forecast: OnForecast | None) -> Self:
        choice = model_choice(settings)
        folder = resolve_model(settings)
        name = DEFAULT_MODEL if choice == REAL else choice
        if Path(choice).is_dir():
            name = Path(choice).resolve().name
        with device_errors():
            on_plan = telling(name, on_forecast)
            model = LoadedModel.load(folder, default_controlnet(settings), settings, on_copy, on_plan)
        engine = cls(name, model, settings)
        if engine.device.startswith("cuda"):
            # Else the first request would wait for the libraries' modules, plans and memory: seconds.
            engine.warm_up()
        return engine

    @property
    def counts(self) -> dict[str, int]:
        """What happened since it was loaded: `oom|rung` for want of memory, `cache|kind|hit` or `miss`."""
        counted = {f"oom|{rung}": times for rung, times in self._model.shortages.items()}
        return counted | {f"cache|{lookup}": times for lookup, times in self._cache.lookups.items()}

    def warm_up(self) -> None:
        """Make one whole picture of one step, which nobody sees. Raises `ModelError`."""
        job = Job(prompt="warm-up", width=WARM_UP_SIDE, height=WARM_UP_SIDE, num_inference_steps=1)
        self.generate(job, None, lambda step: None)

    def generate(
        self,
        job: Job,
        control: Pixels | None,
        on_step: OnStep,
        start: Start | None = None,
        keep_going: KeepGoing = go_on,
        on_stage: OnStage = lambda stage: None,
    ) -> Generated:
        """A picture for each of `job.seeds`; `control` is (height, width, 3) of their size.

        `start` goes with `job.strength`: what the pictures start from. Outside its mask they stay as it is.
        Raises `ModelError`. What callbacks raise passes through, and leaves the engine ready for the next.
        """
        stages = Stages(on_stage, self._model.synchronize)
        with torch.no_grad(), device_errors(), self._saying(keep_going):
            return self._generate(job, control, on_step, start, stages)

    def expand(self, prompt: str, seed: int, keep_going: KeepGoing = go_on) -> Expansion:
        """The prompt as the text encoder rewrites it. Raises `ModelError`, and as `keep_going`."""

        def rewrite() -> Expansion:
            with self._model.text_encoder() as text_encoder:
                graphs = self._graphs_of(text_encoder)
                return expand_prompt(text_encoder, self._model.tokenizer, prompt, seed, graphs)

        refusal = f"The text encoder does not fit the memory of {self.device}; stop what else runs on it."
        with torch.no_grad(), device_errors(), self._saying(keep_going):
            return fit(self._model, refusal, rewrite)

    def control_map(self, preprocess: Preprocess, source: Pixels, keep_going: KeepGoing = go_on) -> Pixels:
        """What would guide a picture; `source` is of the picture's size already.

        Raises `ModelError`, and as `keep_going`.
        """
        height, width = source.shape[:2]
        job = Job(prompt="", width=width, height=height, preprocess=preprocess)
        with torch.no_grad(), device_errors(), self._saying(keep_going):
            return self._fit(job, self._control_map, job, source)

    def _generate(
        self, job: Job, control: Pixels | None, on_step: OnStep, start: Start | None, stages: Stages
    ) -> Generated:
        warnings = list(job.warnings)
        self._fit(job, self._model.go_back)
        placement = self._model.placement
        with stages.stage("loras"):
            loras = self._fit(job, self._loras.apply, job.loras)

        with stages.stage("encode"):
            embeds, expanded, warning = self._fit(job, self._encode, job)
            warnings += [warning] if warning else []
        self._fit(job, self._model.make_room, job.width * job.height, job.num_images)

        control_image = control_latents = None
        if control is not None and job.is_controlled:
            with stages.stage("preprocess"):
                control_image = self._fit(job, self._control_map, job, control)
            if job.preprocess == "pose" and not control_image.any():
                warnings.append("No person was found in the image, so the pose guides nothing.")
            with stages.stage("control"):
                control_latents = self._fit(job, self._encode_picture, control_image)

        start_latents = None
        if start is not None:
            with stages.stage("image"):
                start_latents = self._fit(job, self._encode_picture, start.image)
                if start.mask is not None and job.is_controlled:
                    control_latents = self._fit(job, self._encode_picture, start.image, start.mask)

        mask = start.mask if start else None
        with stages.stage("denoise"):
            latents = self._denoise(job, _Inputs(embeds, control_latents, start_latents, mask), on_step)
        with stages.stage("decode"):
            images = self.path.run(lambda: self._fit(job, self._decode, latents))
        self._decode_seconds = stages.timings["decode"] / (len(images) * job.width * job.height)
        if start is not None:
            images = _unmasked_kept(images, start, job)
        if self._model.placement != placement:
            warnings.append(
                f"The memory of {self.device} ran out; for some minutes this server works slower, with less."
            )
        facts = Facts(
            model=self.name,
            dtype=placement.precision,
            fast_path=self.path.name,
            seeds=job.seeds,
            prompt=job.prompt,
            expanded_prompt=expanded,
            strength=job.strength,
            controlnet=job.controlnet_name if control_latents is not None else None,
            loras=loras,
            timings=stages.timings,
            warnings=tuple(warnings),
        )
        return Generated(tuple(images), control_image, facts)

    def _fit(self, job: Job, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """A part of the pictures, with less memory if need be."""
        return fit(self._model, self._refusal(job), lambda: work(*args, **options), job.width * job.height)

    def _refusal(self, job: Job) -> str:
        return (
            f"A picture of {job.width}x{job.height} does not fit the memory of {self.device}: ask for a "
            "smaller image_size, or stop what else runs on it."
        )

    def _encode(self, job: Job) -> tuple[Tensor, str | None, str | None]:
        """The prompt's embedding; the prompt as it was expanded and a warning, if there is one."""
        if job.enable_prompt_expansion:
            with self._model.text_encoder() as text_encoder:
                parts = text_encoder, self._model.tokenizer
                graphs = self._graphs_of(text_encoder)
                expanded, warning = expand_prompt(*parts, job.prompt, job.seed, graphs)
                embeds = encode_prompt(*parts, expanded or job.prompt, graphs)
            return upload(embeds, self.device), expanded, warning

        prompt = job.expanded_prompt or job.prompt

        def embed() -> Tensor:
            with self._model.text_encoder(layer_by_layer=True) as text_encoder:
                graphs = self._graphs_of(text_encoder)
                return encode_prompt(text_encoder, self._model.tokenizer, prompt, graphs)

        # LoRAs are merged into the transformer alone, so that none of them changes an embedding.
        embeds = self._cache.get("prompt", prompt, embed)
        return upload(embeds, self.device), job.expanded_prompt, None

    def _graphs_of(self, text_encoder: Qwen3ForCausalLM) -> Graphs | None:
        """They are good as long as the weights that they read stay where they are: see `givers`."""
        if self._model.placement.mode != "resident" or not self.device.startswith("cuda"):
            self._graphs = None
        elif self._graphs is None:
            self._graphs = Graphs(text_encoder)
        return self._graphs

    def _encode_picture(self, image: Pixels, mask: Mask | None = None) -> Tensor:
        """Latents of a picture or, with a mask, what tells the control branch of inpainting there."""

        def encode() -> Tensor:
            with self._model.autoencoder(pixels) as vae:
                latents = encode_picture(vae, image) if mask is None else encode_inpainting(vae, image, mask)
                return latents.cpu()

        pixels = image.shape[0] * image.shape[1]
        key = (_digest(image), None if mask is None else _digest(mask), self._model.is_tiled(pixels))
        return upload(self._cache.get("control", key, encode), self.device)

    def _decode(self, latents: Tensor) -> list[Pixels]:
        """One picture after the other: at once they would take more memory and no less time."""
        pixels = latents[0, 0].numel() * self._model.pixels_per_latent**2
        with self._model.autoencoder(pixels) as vae:
            return [decode(vae, latents[place : place + 1]) for place in range(len(latents))]

    def _control_map(self, job: Job, control: Pixels) -> Pixels:
        match job.preprocess:
            case "depth":
                detect = self._detectors.depth
            case "pose":
                detect = self._detectors.pose
            case _:
                return control
        key = (_digest(control), job.preprocess, job.width, job.height)
        return self._cache.get("map", key, lambda: detect(control, job.width, job.height))

    def _denoise(self, job: Job, inputs: _Inputs, on_step: OnStep) -> Tensor:
        """Latents of all pictures, as many at a time as the memory takes."""
        return self.path.run(
            lambda: fit_batch(
                self._model,
                self._refusal(job),
                job.num_images,
                lambda at_once: self._denoise_by(at_once, job, inputs, on_step),
                job.width * job.height,
            )
        )

    def _denoise_by(self, at_once: int, job: Job, inputs: _Inputs, on_step: OnStep) -> Tensor:
        model = self._model
        embeds, control_latents, start, mask = inputs
        height, width = job.height // model.pixels_per_latent, job.width // model.pixels_per_latent
        batches = [job.seeds[first : first + at_once] for first in range(0, job.num_images, at_once)]

        step_began = time.perf_counter()
        earlier: Callable[[], Tensor] | None = None

        def report(batch: int, step: int, steps: int, guess: Callable[[], Tensor]) -> None:
            nonlocal step_began, earlier
            model.steps.end()
            seconds = time.perf_counter() - step_began
            if model.steps.run_ahead and step == 1:
                # It was only handed over.
                seconds = max(seconds, self._step_seconds)
            self._step_seconds = seconds
            # Where this step is still under way, the one before is shown.
            shown, earlier = earlier if model.steps.run_ahead else guess, guess
            done, total = batch * steps + step, len(batches) * steps
            # As the last step went: the first may have read its weights from the disk, and a step without the
            # control branch is shorter.
            left = seconds * (total - done) + self._decode_seconds * job.width * job.height * job.num_images
            on_step(Step(done, total, shown and partial(self._preview, shown), left))
            step_began = time.perf_counter()

        path = job.controlnet if control_latents is not None else None
        with model.denoiser(path) as (transformer, controlnet):
            branch = None
            if control_latents is not None and controlnet is not None:
                tokens = control_tokens(transformer, controlnet, control_latents)
                branch = Control(controlnet, tokens, job.control_scale)
            sigmas = noise_levels(model.scheduler, job.num_inference_steps)[job.first_step :]
            made, window = [], (job.control_start, job.control_end)
            for batch, seeds in enumerate(batches):
                varied = vary(embeds, seeds, job.seed_variance)
                conditioning = condition(transformer, varied, height, width)
                drawn = [draw_noise(seed, transformer.in_channels, height, width) for seed in seeds]
                noise = upload(torch.cat(drawn), embeds.device)
                latents = noise if start is None else mix(start, noise, sigmas[0].item())
                kept = None
                if start is not None and mask is not None:
                    hole = upload(latent_mask(mask, model.pixels_per_latent), embeds.device)
                    kept = Kept(start, noise, hole)
                rest = partial(report, batch), branch, *window, kept, model.predict
                made.append(denoise(transformer, conditioning, latents, sigmas, *rest))
            return torch.cat(made)

    def _preview(self, guess: Callable[[], Tensor]) -> Pixels:
        with self._model.steps.beside():
            return preview(guess())

    def _saying(self, keep_going: KeepGoing) -> AbstractContextManager[None]:
        # Compiled code would have to be compiled for it.
        return nullcontext() if self._model.is_compiled else self._model.steps.saying(keep_going)


def _unmasked_kept(images: list[Pixels], start: Start, job: Job) -> list[Pixels]:
    """The pictures with all that no step could change as it was, to the pixel."""
    if job.first_step == job.num_inference_steps:
        return [start.image for _ in images]
    if start.mask is None:
        return images
    return [np.where(start.mask[:, :, None], image, start.image) for image in images]


def _digest(pixels: Pixels | Mask) -> tuple[tuple[int, ...], bytes]:
    return pixels.shape, hashlib.sha256(pixels.tobytes()).digest()
