"""An input in the words of another dialect, checked as the endpoint that takes it checks its own.

The fields of the endpoint are taken under their own names from any dialect: a new one needs no line there.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from app.errors import BadInput, NotMade, bad_input
from models.schema.catalog import Endpoint, with_loras
from models.schema.inputs import read_input
from models.sizes import MAX_SIDE, MIN_SIDE, grid_warnings, on_grid

DRAWN_SEED = -1
"""A chat would get the same picture for each prompt by our own default, 0."""

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


class Size(NamedTuple):
    """A size in pixels that a caller names."""

    width: int
    height: int

    def __str__(self) -> str:
        return on_grid(self.width, self.height)


def read_size(text: str) -> Size | None:
    """`1024x1024`; None for `auto` and for nothing. Raises PydanticCustomError."""
    if text in ("", "auto"):
        return None
    written = _SIZE.fullmatch(text)
    size = Size(int(written[1]), int(written[2])) if written else None
    if size is None or not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise PydanticCustomError(
            "size",
            "must be auto or WIDTHxHEIGHT, each from {least} to {most} pixels",
            {"least": MIN_SIDE, "most": MAX_SIDE},
        )
    return size


class Asked(NamedTuple):
    """What a caller asks an endpoint for."""

    endpoint: Endpoint
    checked: BaseModel
    size: Size | None
    """None: the endpoint's own default, or what `image_size` says."""
    warnings: list[str]

    def body(self) -> dict[str, Any]:
        """The input as the record keeps it and a worker reads it."""
        body = self.checked.model_dump(mode="json")
        return body | {"image_size": str(self.size)} if self.size else body


def ask(endpoint: Endpoint, fields: Mapping[str, Any], size: Size | None) -> Asked:
    """`fields` by the endpoint's own names. Raises BadInput."""
    given = with_loras(endpoint, fields)
    if given.get("seed") is None:
        given["seed"] = DRAWN_SEED
    try:
        checked, warnings = read_input(endpoint.input_model, given)
    except ValidationError as error:
        raise bad_input(error) from None
    if size:
        warnings += grid_warnings("size", *size)
    return Asked(endpoint, checked, size, warnings)


@contextmanager
def in_words(words: Mapping[str, str]) -> Iterator[None]:
    """Has each fault found within told by the dialect's names of the fields; `words`: theirs by ours."""
    try:
        yield
    except BadInput as error:
        detail = [
            fault
            | {
                "loc": [words.get(part, part) if isinstance(part, str) else part for part in fault["loc"]],
                "msg": reword(fault["msg"], words),
            }
            for fault in error.detail
        ]
        raise BadInput(reword(str(error), words), error.headers, detail) from None
    except NotMade as error:
        raise NotMade(reword(str(error), words), error.headers) from None


def reword(sentence: str, words: Mapping[str, str]) -> str:
    """The sentence with the dialect's names of the fields."""
    return re.sub(rf"\b({'|'.join(words)})\b", lambda found: words[found[0]], sentence)


def data_uri(data: bytes) -> str:
    """A picture as a field of ours takes it; of what type it is, everybody who reads it sees by its bytes."""
    return base64_uri(base64.b64encode(data).decode())


def base64_uri(encoded: str) -> str:
    return f"data:image/png;base64,{encoded}"
