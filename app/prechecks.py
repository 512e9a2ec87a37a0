"""Faults of an input beyond its schema that are known at the submit: told then, not later."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from app.availability import NEED_WEIGHTS, missing_detectors
from app.errors import BadInput
from models.weights.availability import detector_fault


async def check_now(checked: BaseModel, app: FastAPI) -> None:
    """Raises BadInput with every fault of an endpoint's checked input that this process can know of."""
    faults = [fault async for fault in _faults(checked, app)]
    if faults:
        raise BadInput("; ".join(fault["msg"] for fault in faults), detail=faults)


async def _faults(checked: BaseModel, app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    preprocess = getattr(checked, "preprocess", None)
    if preprocess in NEED_WEIGHTS:
        missing = await missing_detectors(app.state.requests)
        if preprocess in missing:
            yield _fault(("preprocess",), detector_fault(preprocess, missing[preprocess]))


def _fault(place: tuple[str | int, ...], sentence: str) -> dict[str, Any]:
    return {"loc": ["body", *place], "msg": sentence, "type": "value_error"}
