"""An endpoint that there is nowhere else: what reads the catalog needs no line for it and its own fields."""

from typing import Annotated

import pytest
from pydantic import Field

from models.schema.catalog import ENDPOINTS, Endpoint
from models.schema.inputs import TurboInput

MODEL_ID = "tongyi-mai/z-image/turbo/grain"


class GrainInput(TurboInput):
    grain: Annotated[float, Field(title="Grain", description="How coarse the film is.", ge=0, le=0.5)] = 0.25
    edge: list[int] = Field(default=[], title="Edge", description="Widths of the frame in pixels.")


def add_made_up_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(
        model_id=MODEL_ID,
        short_name="grain",
        display_name="Z-Image Turbo Grain",
        description="A picture as on film.",
        categories=("text-to-image",),
        input_model=GrainInput,
        output_schema=ENDPOINTS["tongyi-mai/z-image/turbo"].output_schema,
    )
    monkeypatch.setitem(ENDPOINTS, MODEL_ID, endpoint)
