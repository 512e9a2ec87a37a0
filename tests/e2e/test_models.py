"""Each model of the catalogue makes a picture of what it takes and nothing more."""

from typing import Any

import httpx
import pytest
from PIL import Image

from models.schema.catalog import ENDPOINTS
from models.schema.model_ids import CONTROLNET_LORA
from tests.e2e.conftest import REQUEST_SECONDS, data_uri, photograph

FIELDS: dict[str, Any] = {
    "prompt": "a red ball",
    "image_url": data_uri(photograph("astronaut")),
    "mask_image_url": data_uri(Image.new("L", (512, 512), 255)),
    "loras": [{"path": "style.safetensors"}],
    "preprocess": "canny",
    "num_inference_steps": 3,
}


@pytest.mark.parametrize("model_id", ENDPOINTS)
def test_every_model_makes_a_picture(url: str, model_id: str) -> None:
    taken = ENDPOINTS[model_id].input_model.model_fields
    body = {name: value for name, value in FIELDS.items() if name in taken}
    held = f"{url}/v1/models/{model_id}?wait={REQUEST_SECONDS:g}"
    result = httpx.post(held, json=body, timeout=REQUEST_SECONDS).json()
    assert result["status"] == "succeeded", result
    assert httpx.get(result["output"]["image"]).headers["content-type"] == "image/png"
    assert ("control_image" in result, bool(result["loras"])) == ("preprocess" in taken, "loras" in taken)
    assert ("strength" in result) == ("strength" in taken)


def test_map_whose_detector_is_not_on_this_machine_is_refused_at_the_submit(url: str) -> None:
    submit = f"{url}/v1/models/{CONTROLNET_LORA}"
    schema = httpx.get(submit).json()["input_schema"]
    told = schema["properties"]["preprocess"]["x-availability"]
    assert [name for name, each in told.items() if not each["available"]] == ["depth", "pose"]
    answer = httpx.post(submit, json=FIELDS | {"preprocess": "depth"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "preprocess"])
