"""The input of each endpoint, as published; the one place that says what a caller may send.

The JSON schema made from these classes drives the playground's form, OpenAPI and the README's table, so every
field has a title and a description. Strict: a bool is no integer, "8" is no number. Nothing is fetched here.
"""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from models.job import OutputFormat, Preprocess
from models.reference import ReferenceFault, check_url, read_reference
from models.sizes import ImageSize

MAX_PROMPT_CHARACTERS = 20_000
"""The model reads 512 tokens, some 2,000 characters; this leaves room for any prompt and none for abuse."""

MAX_URL_CHARACTERS = 8_192
MAX_PATH_CHARACTERS = 2_048
MAX_LORAS = 3
MAX_SEED = 2**63 - 1
MAX_NAMED_FIELDS = 20
"""Unknown fields named one by one in the warnings."""


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


ImageUrl = Annotated[
    Text,
    AfterValidator(_can_be_fetched),
    Field(
        title="Image",
        description=(
            "The image that guides the picture: an https, http or data URL, or a file uploaded here."
        ),
        min_length=1,
        examples=["https://example.com/photo.jpg"],
    ),
]


class LoraInput(BaseModel):
    """One entry of `loras`: a LoRA, or a ControlNet-Union checkpoint in its place."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    path: Text = Field(
        title="Path",
        description=(
            "A safetensors file: a URL, a hub id (`owner/repo`, `owner/repo/file.safetensors`, "
            "`owner/repo:file`), or a name in the server's LoRA folder. "
            "A ControlNet-Union checkpoint selects that ControlNet."
        ),
        min_length=1,
        max_length=MAX_PATH_CHARACTERS,
        examples=["alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union"],
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


class ControlNetLoraInput(BaseModel):
    """Input of `tongyi-mai/z-image/turbo/controlnet/lora`."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    prompt: Text = Field(
        title="Prompt",
        description="What the picture shows. The model reads the first 512 tokens.",
        min_length=1,
        max_length=MAX_PROMPT_CHARACTERS,
        examples=["A lighthouse on a cliff at dusk, oil painting"],
    )
    image_url: ImageUrl
    loras: list[LoraInput] = Field(
        title="LoRAs",
        description=f"Up to {MAX_LORAS} LoRAs or ControlNet checkpoints; may be empty.",
        max_length=MAX_LORAS,
    )
    image_size: ImageSize = Field(
        "auto",
        title="Image size",
        description="Size of the picture; `auto` keeps the shape of the input image.",
    )
    control_scale: float = Field(
        0.9, title="Control scale", description="How strongly the input image guides the picture.", ge=0, le=1
    )
    control_start: float = Field(
        0.0,
        title="Control start",
        description="Fraction of the steps after which control begins.",
        ge=0,
        le=1,
    )
    control_end: float = Field(
        0.4,
        title="Control end",
        description="Fraction of the steps after which control ends; not before `control_start`.",
        ge=0,
        le=1,
        validate_default=True,
    )
    preprocess: Preprocess = Field(
        "none",
        title="Preprocess",
        description="How the control map is made from the image; `none`: the image already is one.",
    )
    num_inference_steps: int = Field(
        8, title="Steps", description="Denoising steps; fewer are faster and rougher.", ge=1, le=8
    )
    seed: int = Field(
        0,
        title="Seed",
        description="The same request and seed give the same picture; -1 draws one, which the result tells.",
        ge=-1,
        le=MAX_SEED,
    )
    enable_prompt_expansion: bool = Field(
        False,
        title="Expand the prompt",
        description="Let the text encoder write a more detailed prompt first; the result tells which.",
    )
    output_format: OutputFormat = Field(
        "png", title="Output format", description="File format of the picture."
    )

    @field_validator("control_end")
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


class PreprocessInput(BaseModel):
    """Input of `/v1/preprocess`."""

    model_config = ConfigDict(strict=True, frozen=True)

    image_url: ImageUrl
    preprocess: Preprocess = Field("canny", title="Preprocess", description="Kind of the control map.")
    image_size: ImageSize = Field("auto", title="Image size", description="Size of the picture to be guided.")


Input = TypeVar("Input", bound=BaseModel)


def read_input(schema: type[Input], body: object) -> tuple[Input, list[str]]:
    """Check `body`, a parsed JSON value; returns the input and a warning for each field that was ignored.

    Raises pydantic.ValidationError, which lists every fault at once.
    """
    checked = schema.model_validate(body)
    unknown = list(_unknown_fields(schema, body, ""))
    warnings = [f"Unknown field {name} was ignored." for name in unknown[:MAX_NAMED_FIELDS]]
    if len(unknown) > MAX_NAMED_FIELDS:
        warnings.append(f"{len(unknown) - MAX_NAMED_FIELDS} more unknown fields were ignored.")
    return checked, warnings


def _unknown_fields(schema: type[BaseModel], body: Any, where: str) -> Iterator[str]:
    """Quoted names of the keys of `body`, known to be valid, that the schema does not have."""
    for name, value in body.items():
        if name not in schema.model_fields:
            # A key may be anything at all, also what UTF-8 cannot say.
            yield ascii(f"{where}{name}"[:80])
            continue
        for item_schema in get_args(schema.model_fields[name].annotation):
            if isinstance(item_schema, type) and issubclass(item_schema, BaseModel):
                for index, item in enumerate(value):
                    yield from _unknown_fields(item_schema, item, f"{where}{name}[{index}].")
