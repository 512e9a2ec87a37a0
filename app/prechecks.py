"""Faults of an input beyond its schema that are known at the submit: told then, not later."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from pydantic import BaseModel

from app.availability import NEED_WEIGHTS, missing_detectors
from app.config import Settings
from app.errors import BadInput
from app.http.multipart import DECODING
from models.errors import LoraError
from models.schema.fields import LoraInput
from models.weights.availability import detector_fault
from models.weights.reference import LocalReference, read_reference
from models.weights.resolve import find_local_lora
from worker.errors import FetchError, ImageError
from worker.inputs.decode import read_image
from worker.inputs.input_image import read_data_uri


async def check_now(checked: BaseModel, app: FastAPI) -> None:
    """Raises BadInput with every fault of an endpoint's checked input that this process can know of."""
    faults = [fault async for fault in _faults(checked, app)]
    if faults:
        raise BadInput(" ".join(fault["msg"] for fault in faults), detail=faults)


async def _faults(checked: BaseModel, app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    settings: Settings = app.state.settings
    image_url: str = getattr(checked, "image_url", "")
    if image_url[:5].lower() == "data:":
        look = partial(_image_fault, image_url, settings.max_image_bytes)
        if sentence := await to_thread.run_sync(look, limiter=DECODING):
            yield _fault(("image_url",), sentence)
    for fault in _lora_faults(getattr(checked, "loras", []), settings):
        yield fault
    preprocess = getattr(checked, "preprocess", None)
    if preprocess in NEED_WEIGHTS:
        missing = await missing_detectors(app.state.requests)
        if preprocess in missing:
            yield _fault(("preprocess",), detector_fault(preprocess, missing[preprocess]))


def _image_fault(image_url: str, max_bytes: int) -> str | None:
    """A picture that is sent along is read to its last pixel, as the prepare stage will."""
    try:
        read_image(read_data_uri(image_url, "image_url", max_bytes), "image_url")
    except (FetchError, ImageError) as error:
        return str(error)
    return None


def _lora_faults(loras: list[LoraInput], settings: Settings) -> Iterator[dict[str, Any]]:
    if not _knows_loras(settings):
        return
    for number, lora in enumerate(loras):
        reference = read_reference(lora.path)
        if isinstance(reference, LocalReference):
            try:
                find_local_lora(reference.name, settings)
            except LoraError as error:
                yield _fault(("loras", number, "path"), f"loras[{number}].path: {error}")


def _knows_loras(settings: Settings) -> bool:
    """Whether the io workers, which read LoRAs, have the same folder: those of other machines may not."""
    return not settings.storage and (settings.lora_dir is None or settings.lora_dir.is_dir())


def _fault(place: tuple[str | int, ...], sentence: str) -> dict[str, Any]:
    return {"loc": ["body", *place], "msg": sentence, "type": "value_error"}
