"""The bodies of fal's protocol, translated to and from this server's own.

https://docs.fal.ai/model-endpoints/queue, and what the public clients insist on: only three state words,
`logs` in every status, `queue_position` while in the queue.
"""

import time
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, TypeAdapter

from app.answers import OUR_FAULTS, failure_of, file_url, timestamp, warnings_of
from app.links import Links
from models.schema.fields import (
    WHOLE,
    ControlEnd,
    ControlScale,
    ControlStart,
    Expansion,
    Format,
    Images,
    ImageUrl,
    InputModel,
    Loras,
    MaskUrl,
    PreprocessField,
    Prompt,
    Seed,
    SeedVariance,
    StartImageUrl,
    Steps,
    Strength,
)
from models.schema.inputs import Windowed
from models.schema.model_ids import (
    CONTROLNET,
    CONTROLNET_LORA,
    IMAGE_TO_IMAGE,
    IMAGE_TO_IMAGE_LORA,
    INPAINTING,
    INPAINTING_LORA,
    TURBO,
    TURBO_LORA,
)
from models.sizes import MAX_SIDE, MIN_SIDE, ImageSize, PresetSize, grid_warnings, on_grid
from worker.queue.record import Record, State

OWNER, APP = "fal-ai", "z-image"

RUN_PATH = "/fal/run"
"""Stands for https://fal.run, where the same path as in the queue makes a call wait for the result."""
REST_PATH = "/fal/rest"
"""The path that stands for https://rest.fal.ai."""
CDN_PATH = "/fal/cdn"
"""The path that stands for https://v3.fal.media."""

DIALECT = "fal"

STATES: dict[State, Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]] = {
    "in_queue": "IN_QUEUE",
    "in_progress": "IN_PROGRESS",
    "succeeded": "COMPLETED",
    "failed": "COMPLETED",
    "cancelled": "COMPLETED",
}


Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE), WHOLE]


class FalSize(InputModel):
    """A size in pixels; each side goes to the nearest multiple of 16."""

    width: Side
    height: Side

    def __str__(self) -> str:
        return on_grid(self.width, self.height)


def _size_in_pixels_or(names: Any) -> BeforeValidator:
    """Checks a size in pixels, or else one of `names`, so that the faults of one are told and not of both."""
    named = TypeAdapter(names)

    def check(size: Any) -> Any:
        return FalSize.model_validate(size) if isinstance(size, dict) else named.validate_python(size)

    return BeforeValidator(check)


FalPreset = Annotated[PresetSize | FalSize, _size_in_pixels_or(PresetSize)]
FalImageSize = Annotated[ImageSize | FalSize, _size_in_pixels_or(ImageSize)]


class FalInput(InputModel):
    """The fields that all of fal's models have; each has its own `image_size` besides."""

    prompt: Prompt
    image_size: str | FalSize
    num_inference_steps: Steps = 8
    seed: Seed | None = None
    enable_prompt_expansion: Expansion = False
    output_format: Format = "png"
    num_images: Images = 1
    seed_variance: SeedVariance = 0.0
    sync_mode: bool = False
    """Answer with the picture itself; of no concern to a worker."""
    acceleration: str = "regular"
    enable_safety_checker: bool = True

    def ours(self) -> dict[str, Any]:
        """The same input as the record keeps it and a worker reads it."""
        fields = self.model_dump(mode="json", exclude={"acceleration", "enable_safety_checker"})
        return fields | {"image_size": str(self.image_size), "seed": -1 if self.seed is None else self.seed}

    def warnings(self) -> list[str]:
        """What `ours` changes."""
        size = self.image_size
        return grid_warnings("image_size", size.width, size.height) if isinstance(size, FalSize) else []


class TextInput(FalInput):
    """Input of `fal-ai/z-image/turbo`."""

    image_size: FalPreset = "landscape_4_3"


class TextLoraInput(TextInput):
    """Input of `fal-ai/z-image/turbo/lora`."""

    loras: Loras = Field(default_factory=list)


class ControlInput(FalInput, Windowed):
    """Input of `fal-ai/z-image/turbo/controlnet`."""

    image_url: ImageUrl
    image_size: FalImageSize = "auto"
    control_scale: ControlScale = 0.75
    control_start: ControlStart = 0.0
    control_end: ControlEnd = 0.8
    preprocess: PreprocessField = "none"


class ControlLoraInput(ControlInput):
    """Input of `fal-ai/z-image/turbo/controlnet/lora`."""

    loras: Loras = Field(default_factory=list)


class ChangedImageInput(FalInput):
    """Input of `fal-ai/z-image/turbo/image-to-image`."""

    image_url: StartImageUrl
    image_size: FalImageSize = "auto"
    strength: Strength = 0.6


class ChangedImageLoraInput(ChangedImageInput):
    """Input of `fal-ai/z-image/turbo/image-to-image/lora`."""

    loras: Loras = Field(default_factory=list)


class InpaintInput(FalInput, Windowed):
    """Input of `fal-ai/z-image/turbo/inpaint`."""

    image_url: StartImageUrl
    mask_image_url: MaskUrl
    image_size: FalImageSize = "auto"
    strength: Strength = 1.0
    control_scale: ControlScale = 0.75
    control_start: ControlStart = 0.0
    control_end: ControlEnd = 0.8


class InpaintLoraInput(InpaintInput):
    """Input of `fal-ai/z-image/turbo/inpaint/lora`."""

    loras: Loras = Field(default_factory=list)


class Model(NamedTuple):
    """One of fal's models."""

    input_model: type[FalInput]
    answered_by: str
    """Model id of the endpoint that answers for it here."""


MODELS: dict[str, Model] = {
    "turbo": Model(TextInput, TURBO),
    "turbo/lora": Model(TextLoraInput, TURBO_LORA),
    "turbo/controlnet": Model(ControlInput, CONTROLNET),
    "turbo/controlnet/lora": Model(ControlLoraInput, CONTROLNET_LORA),
    "turbo/image-to-image": Model(ChangedImageInput, IMAGE_TO_IMAGE),
    "turbo/image-to-image/lora": Model(ChangedImageLoraInput, IMAGE_TO_IMAGE_LORA),
    "turbo/inpaint": Model(InpaintInput, INPAINTING),
    "turbo/inpaint/lora": Model(InpaintLoraInput, INPAINTING_LORA),
}
"""The models of fal that this server answers; a key is what follows owner and app in the model's id."""

OTHER_MODEL = (
    "There is nothing at this path; of fal's models there are here "
    f"{', '.join(f'{OWNER}/{APP}/{path}' for path in MODELS)}."
)


def request_links(request_id: str, links: Links) -> dict[str, str]:
    base = f"{links.base}/{OWNER}/{APP}/requests/{request_id}"
    return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}


def status_body(record: Record, links: Links, logs: bool = False) -> dict[str, Any]:
    """`logs`: whether the caller asked for them; fal's own examples then loop over what there is."""
    body: dict[str, Any] = {
        "status": STATES[record.state],
        "request_id": record.id,
        **request_links(record.id, links),
        # The Python client reads this and `queue_position` by name, in every answer.
        "logs": _logs(record) if logs else None,
    }
    if record.state == "in_queue":
        body["queue_position"] = record.position or 0
    if failure := failure_of(record):
        body |= {"error": failure["message"], "error_type": failure["type"]}
    if record.output:
        body["metrics"] = {"inference_time": record.gpu_seconds}
    return body


def _logs(record: Record) -> list[dict[str, str]]:
    """A log of what was ignored or changed, and of the step that is done, once there is one."""
    lines = [("WARN", warning) for warning in warnings_of(record)]
    if record.step:
        lines.append(("INFO", f"Step {record.step} of {record.total_steps}"))
    now = timestamp(time.time())
    return [
        {"timestamp": now, "level": level, "source": "zturbo", "message": message} for level, message in lines
    ]


def result_body(record: Record, links: Links, urls: list[str] | None = None) -> dict[str, Any]:
    """The result of a request that succeeded; `urls` stand for the pictures' own in `sync_mode`."""
    output, images = record.output or {}, record.images
    return {
        "images": [
            {
                "url": url,
                "width": image["width"],
                "height": image["height"],
                "content_type": image["content_type"],
                "file_name": image["name"],
                "file_size": image["size"],
            }
            for image, url in zip(images, urls or [file_url(image, links) for image in images], strict=True)
        ],
        "seed": output["seed"],
        "prompt": output.get("expanded_prompt") or output["prompt"],
        "has_nsfw_concepts": [False] * len(images),
        "timings": output["timings"],
    }


def fault_status(failure: dict[str, str]) -> Literal[422, 500]:
    """The HTTP status of the result route's answer for a request that has ended without a picture."""
    return 500 if failure["type"] in OUR_FAULTS else 422


def fault_body(failure: dict[str, str]) -> dict[str, Any]:
    """The body of that answer."""
    fault = {"loc": ["body"], "msg": failure["message"], "type": failure["type"]}
    # The JavaScript client's own error says what is under `message`.
    return {"detail": [fault], "message": failure["message"]}


def webhook_body(record: Record, links: Links) -> dict[str, Any]:
    ids = {"request_id": record.id, "gateway_request_id": record.id}
    if failure := failure_of(record):
        return {**ids, "status": "ERROR", "error": failure["message"], "payload": fault_body(failure)}
    return {**ids, "status": "OK", "payload": result_body(record, links)}
