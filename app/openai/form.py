"""A form as OpenAI's clients send it: pictures as files, and every other field as text, nested or not."""

import re
from typing import Any

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile

from app.errors import bad_field
from app.http.body import check_values
from app.http.multipart import DECODING, open_form
from app.openai.bodies import ImagesInput
from app.translation import data_uri
from models.schema.catalog import ENDPOINTS
from worker.errors import ImageError
from worker.inputs.decode import read_image

MAX_FILES = 20
MAX_FIELDS = 100


def _no_text(model: type[BaseModel]) -> set[str]:
    """Names of the fields that are numbers, lists, true or false."""
    fields = model.model_json_schema()["properties"]
    return {name for name, schema in fields.items() if _NO_TEXT_TYPES & _types(schema)}


def _types(schema: dict[str, Any]) -> set[str]:
    return {kind.get("type", "") for kind in (schema, *schema.get("anyOf", ()))}


_NO_TEXT_TYPES = {"integer", "number", "boolean", "array"}
_NO_TEXT = _no_text(ImagesInput).union(*(_no_text(endpoint.input_model) for endpoint in ENDPOINTS.values()))
_NESTED = re.compile(r"loras\[\d*\]\[(\w+)\]")
"""A part of an entry: `loras[][path]`."""


async def read_form(request: Request, limit: int) -> dict[str, Any]:
    """The body that the form stands for, its image and mask as data URIs in the fields that we have for them.

    Raises BadInput, and BodyTooLarge once it is past `limit` bytes.
    """
    async with open_form(request, "image", limit, MAX_FILES, MAX_FIELDS) as form:
        fields = read_fields(form)
        image, mask = await _file(form, "image"), await _file(form, "mask")
    if image is None:
        raise bad_field("image", "image: is required, as a file.")
    return fields | await to_thread.run_sync(_pictures, image, mask, limiter=DECODING)


async def _file(form: FormData, name: str) -> bytes | None:
    """The bytes of the one file that is sent as `image`, `image[]` or `image[0]`; None when there is none."""
    files = [
        value
        for part, value in form.multi_items()
        if isinstance(value, UploadFile) and part.partition("[")[0] == name
    ]
    if len(files) > 1:
        raise bad_field(name, f"{name}: {len(files)} are sent, and one is meant.")
    return await files[0].read() if files else None


def _pictures(image: bytes, mask: bytes | None) -> dict[str, str]:
    pictures = {"image_url": data_uri(image)}
    return pictures if mask is None else pictures | {"mask_image_url": data_uri(white_mask(mask))}


def white_mask(mask: bytes) -> bytes:
    """A mask in which white is what is transparent in this one: that is drawn anew. Raises BadInput."""
    # Imported now: OpenCV would slow the start of every command.
    from worker.encoding.encode import encode
    from worker.inputs.mask import HALF

    try:
        transparent = read_image(mask, "mask", "white") - read_image(mask, "mask", "black")
    except ImageError as error:
        raise bad_field("mask", str(error)) from None
    if not (transparent >= HALF).any():
        raise bad_field(
            "mask",
            "mask: nothing in it is transparent by half or more, and what is transparent is drawn anew.",
        )
    return encode(transparent, "png").data


def read_fields(form: FormData) -> dict[str, Any]:
    """The text parts of a form, as they would stand in JSON. Raises BadInput."""
    fields: dict[str, Any] = {}
    columns: dict[str, list[Any]] = {}
    texts = [(name, text) for name, text in form.multi_items() if isinstance(text, str)]
    check_values(text.encode() for name, text in texts if name in _NO_TEXT)
    for name, text in texts:
        if nested := _NESTED.fullmatch(name):
            columns.setdefault(nested[1], []).append(_value(text) if nested[1] == "scale" else text)
        else:
            fields[name] = _value(text) if name in _NO_TEXT else text
    return fields | {"loras": _rows(columns)} if columns else fields


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The entries of `loras`, of which the Python client sends all paths and then all scales."""
    numbers = {len(column) for column in columns.values()}
    if len(numbers) > 1:
        raise bad_field("loras", "loras: which part is of which entry cannot be told; say the scale of each.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _value(text: str) -> Any:
    """What the text means where no text is wanted; left as it is for the check to tell of."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
