"""The three stages of a request as plain functions: prepare, generate, finish. No Redis, no record.

`prepare` may wait for the network for minutes and needs no torch; `generate` needs a loaded engine and does
nothing but the picture; `finish` encodes and keeps it. Each can be done again from the same input.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from models.canny import canny, fit
from models.errors import ControlNetError
from models.job import Job, OnStep, OutputFormat, Picture, Pixels, Preprocess
from models.prompt.expansion import Expansion
from models.prompt.server import expand_by_server
from models.schema.inputs import AnyInput, ControlNetLoraInput
from models.weights.resolve import resolve_controlnet
from models.window import has_controlled_step
from worker.config import WorkerSettings
from worker.encoding.encode import encode
from worker.encoding.metadata import describe
from worker.inputs.decode import read_image
from worker.inputs.input_image import read_source
from worker.inputs.lora_entries import ControlNet, resolve_entries
from worker.stages.size import drawn_size, size_warning
from worker.storage.pictures import Storage

DRAWN_SEEDS = 2**32
"""A seed that is drawn stays readable, and exact in every JSON reader."""


class Engine(Protocol):
    """What is asked of a loaded model; `models.inference.engine.Engine` is the real one."""

    name: str
    device: str

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened since it was loaded, as worker.counters tells it."""

    def generate(self, job: Job, control: Pixels | None, on_step: OnStep) -> tuple[Picture, ...]: ...

    def expand(self, prompt: str, seed: int) -> Expansion: ...

    def control_map(self, preprocess: Preprocess, source: Pixels) -> Pixels: ...


def _go_on() -> None:
    """The default `keep_going`: nothing stops a stage."""


def prepare(
    request: AnyInput | ControlNetLoraInput,
    settings: WorkerSettings,
    storage: Storage,
    keep_going: Callable[[], None] = _go_on,
) -> tuple[Job, Pixels | None]:
    """Everything named is fetched and checked: the job, and the control pixels at the output's size.

    There are none for a request without an image. `keep_going` is called now and then while something is
    fetched; what it raises stops the stage. Raises WorkerError and ModelError.
    """
    control = None
    if request.image_url is None:
        width, height = drawn_size(request.image_size, (0, 0), settings)
    else:
        control = control_source(request, settings, storage)
        height, width = control.shape[:2]
    loras, chosen = resolve_entries(request.loras, settings, keep_going)
    if chosen and control is None:
        raise ControlNetError(f"loras: {chosen.name} is a ControlNet, which needs an image_url to go by.")
    control_scale = request.control_scale * (chosen.scale if chosen else 1)
    window = request.control_start, request.control_end
    controlled = control_scale > 0 and has_controlled_step(request.num_inference_steps, *window)
    if controlled and chosen is None:
        default = resolve_controlnet(settings.controlnet, settings, lambda _: keep_going())
        chosen = ControlNet(default.name, default.path, 1)
    warnings = [told] if (told := size_warning(width, height, settings)) else []
    if control_scale > 0 and not controlled and request.control_start < request.control_end:
        warnings.append(
            f"No whole step of {request.num_inference_steps} lies between control_start {window[0]:g} and "
            f"control_end {window[1]:g}, so the image guides nothing; ask for more steps or a wider window."
        )
    seed = secrets.randbelow(DRAWN_SEEDS) if request.seed == -1 else request.seed
    expanded_prompt, by_server = None, request.enable_prompt_expansion and settings.prompt_llm_url is not None
    if by_server:
        expanded_prompt, fault = expand_by_server(settings, request.prompt, seed)
        warnings += [fault] if fault else []
    job = Job(
        prompt=request.prompt,
        width=width,
        height=height,
        num_inference_steps=request.num_inference_steps,
        seed=seed,
        num_images=request.num_images,
        preprocess="none" if request.preprocess == "canny" else request.preprocess,
        control_scale=control_scale,
        control_start=request.control_start,
        control_end=request.control_end,
        controlnet=chosen.path if controlled and chosen else None,
        controlnet_name=chosen.name if controlled and chosen else None,
        loras=loras,
        enable_prompt_expansion=request.enable_prompt_expansion and not by_server,
        expanded_prompt=expanded_prompt,
        warnings=tuple(warnings),
    )
    return job, control


class ControlInput(Protocol):
    """The fields of an input that tell what guides the picture."""

    @property
    def image_url(self) -> str | None: ...

    @property
    def preprocess(self) -> Preprocess: ...

    @property
    def image_size(self) -> str: ...


def control_source(asked: ControlInput, settings: WorkerSettings, storage: Storage) -> Pixels:
    """The image at the output's size, for canny its map; for depth and pose the engine makes the map of it.

    Raises FetchError, ImageError and SizeError.
    """
    source = read_image(read_source(asked.image_url or "", "image_url", settings, storage), "image_url")
    width, height = drawn_size(asked.image_size, (source.shape[1], source.shape[0]), settings)
    return (canny if asked.preprocess == "canny" else fit)(source, width, height)


def finish(
    model_id: str,
    body: Mapping[str, Any],
    job: Job,
    pictures: Sequence[Picture],
    file_ids: Mapping[str, str],
    settings: WorkerSettings,
    storage: Storage,
) -> dict[str, Any]:
    """Encodes and keeps the pictures; the `output` of their record. Raises StorageError.

    `file_ids` go by `image_stems` and `control_image`: done again, the same bytes go to the same files.
    """
    images = []
    for stem, picture in zip(image_stems(len(pictures)), pictures, strict=True):
        metadata = describe(model_id, body, job, picture) if settings.embed_metadata else None
        images.append(_keep(stem, picture.image, body["output_format"], metadata, file_ids[stem], storage))
    output: dict[str, Any] = {"image": images[0]}
    if len(images) > 1:
        output |= {"images": images, "seeds": [picture.seed for picture in pictures]}
    picture = pictures[0]
    if picture.control_image is not None:
        output["control_image"] = keep_control(picture.control_image, file_ids["control_image"], storage)
    return output | {
        "seed": picture.seed,
        "prompt": picture.prompt,
        "expanded_prompt": picture.expanded_prompt,
        "model": picture.model,
        "controlnet": picture.controlnet,
        "loras": [lora.model_dump() for lora in picture.loras],
        "warnings": list(picture.warnings),
        "timings": {stage: round(seconds, 3) for stage, seconds in picture.timings.items()},
    }


def image_stems(pictures: int) -> list[str]:
    """What each of so many pictures is called: in its record, and its file without the ending."""
    return ["image"] if pictures == 1 else [f"image-{place}" for place in range(1, pictures + 1)]


def keep_control(pixels: Pixels, file_id: str, storage: Storage) -> dict[str, Any]:
    """Keeps a control map, without loss; what is to be known of its file. Raises StorageError."""
    return _keep("control", pixels, "png", None, file_id, storage)


def _keep(
    stem: str,
    pixels: Pixels,
    output_format: OutputFormat,
    metadata: Mapping[str, Any] | None,
    file_id: str,
    storage: Storage,
) -> dict[str, Any]:
    encoded = encode(pixels, output_format, metadata)
    name = f"{stem}.{encoded.extension}"
    storage.put(file_id, name, encoded.data)
    height, width = pixels.shape[:2]
    return {
        "file_id": file_id,
        "name": name,
        "content_type": encoded.content_type,
        "width": width,
        "height": height,
        "size": len(encoded.data),
    }
