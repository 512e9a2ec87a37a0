"""The input of each endpoint, as the hosted service publishes it. It says what a caller may send."""

from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from models.job import DEFAULT_STEPS, MAX_SEED, OutputFormat, Preprocess
from models.schema.fields import (
    DEFAULT_CONTROL_END,
    DEFAULT_CONTROL_SCALE,
    DEFAULT_CONTROL_START,
    DEFAULT_FORMAT,
    DEFAULT_IMAGES,
    DEFAULT_PREPROCESS,
    DEFAULT_SEED,
    DEFAULT_SEED_VARIANCE,
    DEFAULT_SIZE,
    DEFAULT_STRENGTH,
    INPAINTING_CONTROL_END,
    INPAINTING_CONTROL_SCALE,
    INPAINTING_STRENGTH,
    STRICT,
    ControlEnd,
    ControlScale,
    ControlStart,
    Expansion,
    Format,
    Images,
    ImageUrl,
    InputModel,
    LoraInput,
    Loras,
    MaskUrl,
    PreprocessField,
    PresetField,
    Prompt,
    Seed,
    SeedVariance,
    SizeField,
    StartImageUrl,
    Steps,
    Strength,
)
from models.sizes import ImageSize

MAX_NAMED_FIELDS = 20
"""Unknown fields named one by one in the warnings."""


class Windowed(InputModel):
    """The base of the inputs that have a control window."""

    @field_validator("control_end", check_fields=False)
    @classmethod
    def _window_runs_forward(cls, control_end: float, info: ValidationInfo) -> float:
        control_start = info.data.get("control_start")
        if control_start is not None and control_start > control_end:
            raise PydanticCustomError(
                "control_window",
                "control_start ({start}) must not be greater than control_end ({end})",
                {"start": control_start, "end": control_end},
            )
        return control_end


class TurboInput(InputModel):
    """Input of `tongyi-mai/z-image/turbo`: the prompt alone."""

    prompt: Prompt
    image_size: PresetField = DEFAULT_SIZE
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class TurboLoraInput(InputModel):
    """Input of `tongyi-mai/z-image/turbo/lora`, whose documented example is a prompt alone."""

    prompt: Prompt
    loras: Loras = Field(default_factory=list)
    image_size: PresetField = DEFAULT_SIZE
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class ControlNetInput(Windowed):
    """Input of `tongyi-mai/z-image/turbo/controlnet`."""

    prompt: Prompt
    image_url: ImageUrl
    image_size: SizeField = "auto"
    control_scale: ControlScale = DEFAULT_CONTROL_SCALE
    control_start: ControlStart = DEFAULT_CONTROL_START
    control_end: ControlEnd = DEFAULT_CONTROL_END
    preprocess: PreprocessField = DEFAULT_PREPROCESS
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class ControlNetLoraInput(Windowed):
    """Input of `tongyi-mai/z-image/turbo/controlnet/lora`."""

    prompt: Prompt
    image_url: ImageUrl
    loras: Loras
    image_size: SizeField = "auto"
    control_scale: ControlScale = DEFAULT_CONTROL_SCALE
    control_start: ControlStart = DEFAULT_CONTROL_START
    control_end: ControlEnd = DEFAULT_CONTROL_END
    preprocess: PreprocessField = DEFAULT_PREPROCESS
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class ImageToImageInput(InputModel):
    """Input of `tongyi-mai/z-image/turbo/image-to-image`."""

    prompt: Prompt
    image_url: StartImageUrl
    strength: Strength = DEFAULT_STRENGTH
    image_size: SizeField = "auto"
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class ImageToImageLoraInput(InputModel):
    """Input of `tongyi-mai/z-image/turbo/image-to-image/lora`."""

    prompt: Prompt
    image_url: StartImageUrl
    strength: Strength = DEFAULT_STRENGTH
    loras: Loras = Field(default_factory=list)
    image_size: SizeField = "auto"
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class InpaintingInput(Windowed):
    """Input of `tongyi-mai/z-image/turbo/inpainting`."""

    prompt: Prompt
    image_url: StartImageUrl
    mask_image_url: MaskUrl
    strength: Strength = INPAINTING_STRENGTH
    image_size: SizeField = "auto"
    control_scale: ControlScale = INPAINTING_CONTROL_SCALE
    control_start: ControlStart = DEFAULT_CONTROL_START
    control_end: ControlEnd = INPAINTING_CONTROL_END
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class InpaintingLoraInput(Windowed):
    """Input of `tongyi-mai/z-image/turbo/inpainting/lora`."""

    prompt: Prompt
    image_url: StartImageUrl
    mask_image_url: MaskUrl
    strength: Strength = INPAINTING_STRENGTH
    loras: Loras = Field(default_factory=list)
    image_size: SizeField = "auto"
    control_scale: ControlScale = INPAINTING_CONTROL_SCALE
    control_start: ControlStart = DEFAULT_CONTROL_START
    control_end: ControlEnd = INPAINTING_CONTROL_END
    num_inference_steps: Steps = DEFAULT_STEPS
    seed: Seed = DEFAULT_SEED
    num_images: Images = DEFAULT_IMAGES
    seed_variance: SeedVariance = DEFAULT_SEED_VARIANCE
    enable_prompt_expansion: Expansion = False
    output_format: Format = DEFAULT_FORMAT


class AnyInput(BaseModel):
    """The input of any endpoint as a worker reads it: already checked, fields it lacks left out."""

    model_config = STRICT

    prompt: str
    image_url: str | None = None
    mask_image_url: str | None = None
    strength: float | None = None
    """None where the image is no picture to start from, but guides."""
    loras: list[LoraInput] = []
    image_size: str
    """A size that `models.sizes.output_size` takes."""
    control_scale: float = 0.0
    control_start: float = 0.0
    control_end: float = 0.0
    preprocess: Preprocess = "none"
    num_inference_steps: int
    seed: int
    num_images: int = 1
    seed_variance: float = 0.0
    enable_prompt_expansion: bool
    output_format: OutputFormat


class ExpandInput(InputModel):
    """Input of `/v1/expand`."""

    prompt: Prompt
    seed: Seed = DEFAULT_SEED


class PreprocessInput(InputModel):
    """Input of `/v1/preprocess`."""

    image_url: ImageUrl
    preprocess: Preprocess = Field("canny", title="Preprocess", description="Kind of the control map.")
    image_size: ImageSize = Field("auto", title="Image size", description="Size of the picture to be guided.")


Input = TypeVar("Input", bound=BaseModel)


def read_input(schema: type[Input], body: object) -> tuple[Input, list[str]]:
    """Check `body`, a parsed JSON value; returns the input, and a warning for what was ignored or changed.

    Raises pydantic.ValidationError, which lists every fault at once.
    """
    checked = schema.model_validate(body)
    unknown = list(_unknown_fields(schema, body, ""))
    warnings = [f"Unknown field {name} was ignored." for name in unknown[:MAX_NAMED_FIELDS]]
    if len(unknown) > MAX_NAMED_FIELDS:
        warnings.append(f"{len(unknown) - MAX_NAMED_FIELDS} more unknown fields were ignored.")
    seed = body.get("seed") if isinstance(body, dict) and "seed" in schema.model_fields else None
    if isinstance(seed, int | float) and seed > MAX_SEED:
        # Not quoted: it may have thousands of digits.
        warnings.append(
            f"seed: from 2**63 on it is taken modulo 2**63, here as {int(seed) % (MAX_SEED + 1)}."
        )
    return checked, warnings


def _unknown_fields(schema: type[BaseModel], body: Any, where: str) -> Iterator[str]:
    """Quoted names of the keys of `body`, known to be valid, that the schema does not have."""
    items = _item_schemas(schema)
    for name, value in body.items():
        if name not in items:
            # A key may be anything at all, also what UTF-8 cannot say.
            yield ascii(f"{where}{name}"[:80])
        elif (item_schema := items[name]) and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _unknown_fields(item_schema, item, f"{where}{name}[{index}].")


@cache
def _item_schemas(schema: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """The model of each field's items; None for a field that is no list of models."""
    found: dict[str, type[BaseModel] | None] = {}
    for name, field in schema.model_fields.items():
        kinds = [kind for kind in get_args(field.annotation) if isinstance(kind, type)]
        found[name] = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
    return found
