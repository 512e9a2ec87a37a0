"""The bodies of Hugging Face's inference endpoints, translated to this server's own.

https://huggingface.co/docs/inference-providers/tasks/text-to-image: the answer is the picture's bytes alone.
"""

from typing import Annotated, Any

from pydantic import Field, ValidationError

from app.errors import bad_field, bad_input
from app.translation import Asked, Size, ask, base64_uri, in_words
from models.schema.catalog import Endpoint
from models.schema.fields import WHOLE, InputModel, Text
from models.sizes import MAX_SIDE, MIN_SIDE

Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE), WHOLE]


class TargetSize(InputModel):
    """What image to image calls a size."""

    width: Side
    height: Side


class Parameters(InputModel, extra="allow"):
    """The fields of the endpoint by their own names, but for the size."""

    width: Side | None = None
    height: Side | None = None
    target_size: TargetSize | None = None

    def size(self) -> Size | None:
        """Raises BadInput for one side without the other."""
        if self.target_size:
            return Size(self.target_size.width, self.target_size.height)
        if self.width is None and self.height is None:
            return None
        if self.width is None or self.height is None:
            raise bad_field("parameters", "parameters: width and height go together.")
        return Size(self.width, self.height)


class HubInput(InputModel):
    """The body of a call."""

    inputs: Annotated[
        Text,
        Field(
            description="The prompt; of a model that takes an image that, in base64, or its URL.",
            min_length=1,
        ),
    ]
    parameters: Parameters = Parameters()


def read_call(endpoint: Endpoint, body: object) -> Asked:
    """Raises BadInput."""
    try:
        said = HubInput.model_validate(body)
    except ValidationError as error:
        raise bad_input(error) from None
    more: dict[str, Any] = said.parameters.model_extra or {}
    field, value = inputs_field(endpoint), said.inputs
    if field == "image_url" and "://" not in value and value[:5].lower() != "data:":
        value = base64_uri(value)
    if more.get("num_images") not in (None, 1):
        raise bad_field("num_images", "num_images: an answer here has one picture.")
    with in_words({field: "inputs"}):
        return ask(endpoint, more | {field: value}, said.parameters.size())


def inputs_field(endpoint: Endpoint) -> str:
    """The field of ours that `inputs` is."""
    return "image_url" if "image_url" in endpoint.input_model.model_fields else "prompt"
