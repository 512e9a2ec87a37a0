"""The bodies of OpenAI's images API, translated to and from this server's own.

https://platform.openai.com/docs/api-reference/images, and what its public clients insist on: `b64_json`
unless a `url` is asked for, and exactly `n` pictures.
"""

import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from app.answers import warnings_of
from app.errors import bad_input
from app.schemas import Body
from app.translation import Asked, Size, ask, in_words, read_size
from models.schema.catalog import ENDPOINTS, Endpoint
from models.schema.fields import STRICT, WHOLE, Format, Images, InputModel, Prompt, Text
from models.schema.model_ids import CONTROLNET_LORA, IMAGE_TO_IMAGE_LORA, INPAINTING_LORA, TURBO_LORA
from worker.queue.record import Record
from worker.storage.workspace import PICTURE_FIELDS

MAX_PARTIAL_IMAGES = 3

USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
"""Nobody is billed here; clients add these numbers up."""

Event = Literal["image_generation", "image_edit"]

WORDS: dict[Event, dict[str, str]] = {
    "image_generation": {"num_images": "n", "image_size": "size"},
    "image_edit": {
        "num_images": "n",
        "image_size": "size",
        "image_url": "image",
        "mask_image_url": "mask",
    },
}
"""OpenAI's names of the fields by ours, in each call."""


def _size(text: str) -> str:
    read_size(text)
    return text


class ImagesInput(InputModel):
    """What OpenAI's dialect has words for; every other field is the endpoint's, by its own name."""

    model_config = STRICT | ConfigDict(extra="allow")

    prompt: Prompt
    model: Annotated[
        Text,
        Field(
            title="Model",
            description="A model id of this server; any other name is one that fits the call.",
        ),
    ] = ""
    n: Images | None = None
    size: Annotated[
        str,
        AfterValidator(_size),
        Field(title="Size", description="`auto`, or width and height in pixels.", examples=["1024x1024"]),
    ] = "auto"
    output_format: Format = "png"
    response_format: Literal["b64_json", "url"] = Field(
        "b64_json", title="Response format", description="The picture itself, or a URL of it."
    )
    stream: bool = Field(False, title="Stream", description="Answer with server-sent events.")
    partial_images: Annotated[
        int,
        Field(
            title="Partial images",
            description="Previews that a stream has at most.",
            ge=0,
            le=MAX_PARTIAL_IMAGES,
        ),
        WHOLE,
    ] = 0
    quality: Any = Field(None, description="Taken, and does nothing, as the fields below.")
    style: Any = None
    background: Any = None
    moderation: Any = None
    output_compression: Any = None
    input_fidelity: Any = None
    user: Any = None
    safety_identifier: Any = None

    def fields(self) -> dict[str, Any]:
        """The endpoint's own fields."""
        fields = {"prompt": self.prompt, "output_format": self.output_format} | (self.model_extra or {})
        return fields if self.n is None else fields | {"num_images": self.n}


def read_generation(body: object) -> tuple[ImagesInput, Asked]:
    """A call that makes pictures of a prompt. Raises BadInput."""
    with in_words(WORDS["image_generation"]):
        said = _read(body)
        endpoint = ENDPOINTS.get(said.model, ENDPOINTS[TURBO_LORA])
        return said, ask(endpoint, said.fields(), read_size(said.size))


def read_edit(body: dict[str, Any]) -> tuple[ImagesInput, Asked]:
    """A call that has an image, `image_url` in `body`, and maybe a mask. Raises BadInput."""
    with in_words(WORDS["image_edit"]):
        said = _read(body)
        fields = said.fields()
        return said, ask(_edit_endpoint(said.model, fields), fields, read_size(said.size))


def _read(body: object) -> ImagesInput:
    try:
        return ImagesInput.model_validate(body)
    except ValidationError as error:
        raise bad_input(error) from None


def _edit_endpoint(model: str, fields: dict[str, Any]) -> Endpoint:
    """The named one if it takes the pictures that are sent, else the one that they are meant for."""
    endpoint = ENDPOINTS.get(model)
    if (
        endpoint is not None
        and fields.keys() & set(PICTURE_FIELDS) <= endpoint.input_model.model_fields.keys()
    ):
        return endpoint
    if "mask_image_url" in fields:
        return ENDPOINTS[INPAINTING_LORA]
    return ENDPOINTS[CONTROLNET_LORA if "preprocess" in fields else IMAGE_TO_IMAGE_LORA]


class ImagesBody(Body):
    """The answer to a call that does not stream."""

    created: int = Field(description="Unix seconds.")
    data: list[dict[str, Any]] = Field(
        description="`b64_json` or `url` of each picture, and `revised_prompt`."
    )
    output_format: str
    size: str
    usage: dict[str, Any]
    warnings: list[str] = Field(description="What was ignored or changed.")


def answer_body(record: Record, pictures: list[dict[str, str]]) -> dict[str, Any]:
    """`pictures`: of each, `b64_json` or `url`."""
    revised_prompt = (record.output or {}).get("expanded_prompt")
    return ImagesBody(
        created=int(record.finished_at or time.time()),
        data=[picture | {"revised_prompt": revised_prompt} for picture in pictures],
        output_format=record.input["output_format"],
        size=size_of(record),
        usage=USAGE,
        warnings=warnings_of(record),
    ).model_dump()


def size_of(record: Record) -> str:
    """Width and height of the pictures in pixels."""
    return str(Size(record.images[0]["width"], record.images[0]["height"]))


def partial_body(event: Event, preview: str, index: int) -> dict[str, Any]:
    """`preview`: a JPEG in base64, smaller than the picture."""
    return _event_body(event, "partial_image", preview, "auto", "jpeg") | {"partial_image_index": index}


def completed_body(event: Event, record: Record, b64_json: str) -> dict[str, Any]:
    body = _event_body(event, "completed", b64_json, size_of(record), record.input["output_format"])
    return body | {"usage": USAGE}


def _event_body(event: Event, what: str, b64_json: str, size: str, output_format: str) -> dict[str, Any]:
    return {
        "type": f"{event}.{what}",
        "b64_json": b64_json,
        "created_at": int(time.time()),
        "size": size,
        "quality": "auto",
        "background": "opaque",
        "output_format": output_format,
    }
