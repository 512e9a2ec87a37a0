"""The catalog of the endpoints that this server answers, by model id."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from models.schema.inputs import (
    ControlNetInput,
    ControlNetLoraInput,
    ImageToImageInput,
    ImageToImageLoraInput,
    InpaintingInput,
    InpaintingLoraInput,
    TurboInput,
    TurboLoraInput,
)
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


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One model id: what it is called, what it takes and what it gives. It equals itself alone."""

    model_id: str
    short_name: str
    """What people may call it on the command line."""
    display_name: str
    description: str
    categories: tuple[str, ...]
    input_model: type[BaseModel]
    output_schema: dict[str, Any]


IMAGE_OUTPUT: dict[str, Any] = {
    "title": "ImageOutput",
    "type": "object",
    "properties": {
        "image": {
            "title": "Image",
            "description": "URL of the picture; it needs no token.",
            "type": "string",
            "format": "uri",
        },
        "images": {
            "title": "Images",
            "description": "Likewise, instead of `image`, when `num_images` is more than 1.",
            "type": "array",
            "items": {"type": "string", "format": "uri"},
        },
    },
    "oneOf": [{"required": ["image"]}, {"required": ["images"]}],
}

_ENDPOINTS = (
    Endpoint(
        model_id=CONTROLNET_LORA,
        short_name="controlnet/lora",
        display_name="Z-Image Turbo ControlNet LoRA",
        description=(
            "Text to image in 8 steps by Z-Image-Turbo, guided by an input image through ControlNet-Union "
            "(edges, depth, pose) and styled by up to three LoRAs."
        ),
        categories=("image-to-image",),
        input_model=ControlNetLoraInput,
        output_schema=IMAGE_OUTPUT,
    ),
    Endpoint(
        model_id=TURBO,
        short_name="turbo",
        display_name="Z-Image Turbo",
        description="Text to image in 8 steps by Z-Image-Turbo.",
        categories=("text-to-image",),
        input_model=TurboInput,
        output_schema=IMAGE_OUTPUT,
    ),
    Endpoint(
        model_id=TURBO_LORA,
        short_name="lora",
        display_name="Z-Image Turbo LoRA",
        description="Text to image in 8 steps by Z-Image-Turbo, styled by up to three LoRAs.",
        categories=("text-to-image",),
        input_model=TurboLoraInput,
        output_schema=IMAGE_OUTPUT,
    ),
    Endpoint(
        model_id=CONTROLNET,
        short_name="controlnet",
        display_name="Z-Image Turbo ControlNet",
        description=(
            "Text to image in 8 steps by Z-Image-Turbo, guided by an input image through ControlNet-Union."
        ),
        categories=("image-to-image",),
        input_model=ControlNetInput,
        output_schema=IMAGE_OUTPUT,
    ),
    Endpoint(
        model_id=IMAGE_TO_IMAGE,
        short_name="image-to-image",
        display_name="Z-Image Turbo Image to Image",
        description="An image changed after a prompt by Z-Image-Turbo, as far as `strength` allows.",
        categories=("image-to-image",),
        input_model=ImageToImageInput,
        output_schema=IMAGE_OUTPUT,
    ),
    Endpoint(
        model_id=IMAGE_TO_IMAGE_LORA,
        short_name="image-to-image/lora",
        display_name="Z-Image Turbo Image to Image LoRA",
        description=(
            "An image changed after a prompt by Z-Image-Turbo, as far as `strength` allows, styled by up to "
            "three LoRAs."
        ),
        categories=("image-to-image",),
        input_model=ImageToImageLoraInput,
        output_schema=IMAGE_OUTPUT,
    ),
    Endpoint(
        model_id=INPAINTING,
        short_name="inpainting",
        display_name="Z-Image Turbo Inpainting",
        description=(
            "The masked part of an image drawn anew after a prompt by Z-Image-Turbo; the rest stays to the "
            "pixel."
        ),
        categories=("image-to-image",),
        input_model=InpaintingInput,
        output_schema=IMAGE_OUTPUT,
    ),
    Endpoint(
        model_id=INPAINTING_LORA,
        short_name="inpainting/lora",
        display_name="Z-Image Turbo Inpainting LoRA",
        description=(
            "The masked part of an image drawn anew after a prompt by Z-Image-Turbo, styled by up to three "
            "LoRAs; the rest stays to the pixel."
        ),
        categories=("image-to-image",),
        input_model=InpaintingLoraInput,
        output_schema=IMAGE_OUTPUT,
    ),
)

ENDPOINTS: dict[str, Endpoint] = {endpoint.model_id: endpoint for endpoint in _ENDPOINTS}

CONTROL_FIELDS = ControlNetLoraInput.model_fields.keys() - TurboLoraInput.model_fields.keys()
"""The fields that only an input with an image has, `image_url` among them."""


def endpoint_for(body: Mapping[str, Any]) -> Endpoint:
    """The endpoint that a body without a model id is for.

    A mask asks for inpainting, a strength for image to image, another control field for ControlNet; without
    any of these it is the text model. All of them take LoRAs. A field that this one lacks asks for the first
    endpoint that takes all that the body has and wants nothing more.
    """
    if "mask_image_url" in body:
        usual = ENDPOINTS[INPAINTING_LORA]
    elif "strength" in body:
        usual = ENDPOINTS[IMAGE_TO_IMAGE_LORA]
    else:
        usual = ENDPOINTS[CONTROLNET_LORA if CONTROL_FIELDS & body.keys() else TURBO_LORA]
    fields = {model_id: endpoint.input_model.model_fields for model_id, endpoint in ENDPOINTS.items()}
    known = body.keys() & {name for each in fields.values() for name in each}
    takers = (
        endpoint
        for model_id, endpoint in ENDPOINTS.items()
        if known <= fields[model_id].keys()
        and all(name in body for name, field in fields[model_id].items() if field.is_required())
    )
    return usual if known <= usual.input_model.model_fields.keys() else next(takers, usual)


def with_loras(endpoint: Endpoint, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as the endpoint takes it: no LoRAs are an empty list, which one endpoint requires."""
    wanted = "loras" in endpoint.input_model.model_fields and body.get("loras") is None
    return {**body, "loras": []} if wanted else dict(body)


def short_names() -> dict[str, str]:
    """Model id by short name."""
    return {endpoint.short_name: endpoint.model_id for endpoint in ENDPOINTS.values()}


def categories() -> list[str]:
    return sorted({category for endpoint in ENDPOINTS.values() for category in endpoint.categories})


def search(
    text: str | None = None, category: str | None = None, limit: int = 50, offset: int = 0
) -> tuple[list[Endpoint], int]:
    """One page of the endpoints whose id, name or description contains `text`, and how many there are."""
    wanted = (text or "").casefold()
    found = [
        endpoint
        for endpoint in ENDPOINTS.values()
        if wanted in f"{endpoint.model_id}\n{endpoint.display_name}\n{endpoint.description}".casefold()
        and (not category or category in endpoint.categories)
    ]
    return found[offset : offset + limit], len(found)
