"""The fields of the inputs, each defined once: type, limits, default, title and description.

The JSON schemas that are made from them drive the playground's form, OpenAPI and the tables of the documents.
Nothing is fetched here.
"""

from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from models.config import DEFAULT_CONTROLNET
from models.job import MAX_SEED, OutputFormat, Preprocess
from models.sizes import ImageSize, PresetSize
from models.weights.reference import ReferenceFault, check_url, read_reference

MAX_PROMPT_CHARACTERS = 20_000
"""The model reads 512 tokens, some 2,000 characters; this leaves room for any prompt and none for abuse."""

MAX_URL_CHARACTERS = 8_192
MAX_PATH_CHARACTERS = 2_048
MAX_LORAS = 3
MAX_IMAGES = 4

DEFAULT_SIZE: Final = "square_hd"
"""The size of a picture that no image guides."""
DEFAULT_CONTROL_SCALE = 0.9
DEFAULT_CONTROL_START = 0.0
DEFAULT_CONTROL_END = 0.4
DEFAULT_STRENGTH = 0.6
INPAINTING_STRENGTH = 1.0
INPAINTING_CONTROL_SCALE = 0.75
INPAINTING_CONTROL_END = 0.8
DEFAULT_PREPROCESS: Final = "none"
DEFAULT_SEED = 0
DEFAULT_IMAGES = 1
DEFAULT_SEED_VARIANCE = 0.0
DEFAULT_FORMAT: Final = "png"

STRICT = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
"""A bool is no integer, "8" is no number."""


class InputModel(BaseModel):
    """A JSON object that callers send: nothing is coerced, and `null` in an optional field is its default."""

    model_config = STRICT

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, body: Any) -> Any:
        if not isinstance(body, dict) or None not in body.values():
            return body
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in body.items() if value is not None or name not in optional}


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and number.is_integer() else number


WHOLE = BeforeValidator(_whole)
"""Behind the bounds of an `int`: an integer as JSON Schema has it, where 8.0 is one."""


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("text_nul", "must not contain the NUL character")
    return text


Text = Annotated[str, AfterValidator(_no_nul)]


def _can_be_fetched(image_url: str) -> str:
    if image_url[:5].lower() == "data:" or image_url.startswith("/v1/files/"):
        return image_url
    if "://" not in image_url:
        raise PydanticCustomError(
            "image_url", "must be an https:, http: or data: URL, or a file uploaded to this server"
        )
    if len(image_url) > MAX_URL_CHARACTERS:
        raise PydanticCustomError(
            "image_url", "must be at most {limit} characters long", {"limit": MAX_URL_CHARACTERS}
        )
    try:
        check_url(image_url)
    except ReferenceFault as fault:
        raise PydanticCustomError("image_url", "{reason}", {"reason": str(fault)}) from None
    return image_url


_PictureUrl = Annotated[Text, AfterValidator(_can_be_fetched)]
ImageUrl = Annotated[
    _PictureUrl,
    Field(
        title="Image",
        description=(
            "The image that guides the picture: an https, http or data URL, or a file uploaded here."
        ),
        min_length=1,
        examples=["https://example.com/photo.jpg"],
    ),
]
StartImageUrl = Annotated[
    _PictureUrl,
    Field(
        title="Image",
        description="The image to change: an https, http or data URL, or a file uploaded here.",
        min_length=1,
        examples=["https://example.com/photo.jpg"],
    ),
]
MaskUrl = Annotated[
    _PictureUrl,
    Field(
        title="Mask",
        description=(
            "What is white in this picture, of the image's size, is drawn anew, and the rest stays to the "
            "pixel: an https, http or data URL, or a file uploaded here."
        ),
        min_length=1,
        examples=["https://example.com/mask.png"],
    ),
]


class LoraInput(InputModel):
    """One entry of `loras`: a LoRA, or a ControlNet-Union checkpoint in its place."""

    path: Text = Field(
        title="Path",
        description=(
            "A safetensors file: a URL, a hub id (`owner/repo`, `owner/repo/file.safetensors`, "
            "`owner/repo:file`), or a name in the server's LoRA folder. "
            "A ControlNet-Union checkpoint selects that ControlNet."
        ),
        min_length=1,
        max_length=MAX_PATH_CHARACTERS,
        examples=[DEFAULT_CONTROLNET],
    )
    scale: float = Field(
        1.0,
        title="Scale",
        description="Strength of the LoRA; for a ControlNet it multiplies `control_scale`.",
        ge=0,
        le=4,
    )

    @field_validator("path")
    @classmethod
    def _path_names_a_file(cls, path: str) -> str:
        try:
            read_reference(path)
        except ReferenceFault as fault:
            raise PydanticCustomError("lora_path", "{reason}", {"reason": str(fault)}) from None
        return path


Prompt = Annotated[
    str,
    Field(
        title="Prompt",
        description="What the picture shows. The model reads the first 512 tokens.",
        min_length=1,
        max_length=MAX_PROMPT_CHARACTERS,
        examples=["A lighthouse on a cliff at dusk, oil painting"],
    ),
    AfterValidator(_no_nul),
]
Loras = Annotated[
    list[LoraInput],
    Field(
        title="LoRAs",
        description=f"Up to {MAX_LORAS} LoRAs or ControlNet checkpoints; may be empty.",
        max_length=MAX_LORAS,
    ),
]
Strength = Annotated[
    float,
    Field(
        title="Strength",
        description="How far the picture may go from the image: 0 gives it back, 1 draws all of it anew.",
        ge=0,
        le=1,
    ),
]
SizeField = Annotated[
    ImageSize,
    Field(title="Image size", description="Size of the picture; `auto` keeps the shape of the input image."),
]
PresetField = Annotated[PresetSize, Field(title="Image size", description="Size of the picture.")]
ControlScale = Annotated[
    float,
    Field(title="Control scale", description="How strongly the input image guides the picture.", ge=0, le=1),
]
ControlStart = Annotated[
    float,
    Field(
        title="Control start",
        description="Fraction of the steps after which control begins.",
        ge=0,
        le=1,
        examples=[0.1],
    ),
]
ControlEnd = Annotated[
    float,
    Field(
        title="Control end",
        description="Fraction of the steps after which control ends; not before `control_start`.",
        ge=0,
        le=1,
        validate_default=True,
    ),
]
PreprocessField = Annotated[
    Preprocess,
    Field(
        title="Preprocess",
        description="How the control map is made from the image; `none`: the image already is one.",
    ),
]
Steps = Annotated[
    int,
    Field(title="Steps", description="Denoising steps; fewer are faster and rougher.", ge=1, le=8),
    WHOLE,
]


def _in_range(seed: int) -> int:
    return -1 if seed < 0 else seed % (MAX_SEED + 1)


Seed = Annotated[
    int,
    AfterValidator(_in_range),
    Field(
        title="Seed",
        description=(
            "The same request and seed give the same picture; below 0 one is drawn, which the result tells, "
            "and from 2**63 on it is taken modulo 2**63."
        ),
    ),
    WHOLE,
]
Images = Annotated[
    int,
    Field(
        title="Pictures",
        description=("Pictures to make at once; the first has `seed`, the next `seed + 1`, and so on."),
        ge=1,
        le=MAX_IMAGES,
    ),
    WHOLE,
]
SeedVariance = Annotated[
    float,
    Field(
        title="Seed variance",
        description=(
            "How far each seed changes what the model reads in the prompt, so that seeds differ in their "
            "composition: noise on half of the embedding's values, of so many of its standard deviations. "
            "0.1 is subtle, 0.5 strong."
        ),
        ge=0,
        le=1,
        examples=[0.1],
        # A request without it is kept, and known when it is sent again, as before there was this field.
        exclude_if=lambda seed_variance: seed_variance == 0,
    ),
]
Expansion = Annotated[
    bool,
    Field(
        title="Expand the prompt",
        description="Let the text encoder write a more detailed prompt first; the result tells which.",
    ),
]
Format = Annotated[OutputFormat, Field(title="Output format", description="File format of the picture.")]
