from typing import Any

import pytest

from models.schema.catalog import ENDPOINTS, categories, endpoint_for, search
from models.schema.inputs import ControlNetLoraInput

MODEL_ID = "tongyi-mai/z-image/turbo/controlnet/lora"


def test_the_documented_endpoint_is_there() -> None:
    endpoint = ENDPOINTS[MODEL_ID]
    assert endpoint.input_model is ControlNetLoraInput
    assert endpoint.output_schema["properties"]["image"]["type"] == "string"
    assert categories() == ["image-to-image", "text-to-image"]


def test_siblings_take_the_same_fields_less_what_they_do_not_have() -> None:
    whole = ControlNetLoraInput.model_json_schema()["properties"]
    control = {"control_scale", "control_start", "control_end", "preprocess", "image_url"}
    for suffix, missing in (("", {*control, "loras"}), ("/lora", control), ("/controlnet", {"loras"})):
        fields = ENDPOINTS[f"tongyi-mai/z-image/turbo{suffix}"].input_model.model_json_schema()["properties"]
        assert set(fields) == set(whole) - missing
        for name in set(fields) - {"image_size"}:
            assert fields[name] == whole[name]
    assert "auto" not in str(ENDPOINTS["tongyi-mai/z-image/turbo"].input_model.model_json_schema())


def test_endpoints_that_change_an_image_take_the_same_fields_and_a_strength() -> None:
    whole = ControlNetLoraInput.model_json_schema()["properties"]
    control = {"control_scale", "control_start", "control_end"}
    for suffix, missing, added in (
        ("image-to-image", {*control, "loras", "preprocess"}, {"strength"}),
        ("image-to-image/lora", {*control, "preprocess"}, {"strength"}),
        ("inpainting", {"loras", "preprocess"}, {"strength", "mask_image_url"}),
        ("inpainting/lora", {"preprocess"}, {"strength", "mask_image_url"}),
    ):
        schema = ENDPOINTS[f"tongyi-mai/z-image/turbo/{suffix}"].input_model.model_json_schema()
        assert set(schema["properties"]) == set(whole) - missing | added
        assert set(schema["required"]) == {"prompt", "image_url"} | added - {"strength"}


@pytest.mark.parametrize(
    ("body", "suffix"),
    [
        ({}, "lora"),
        ({"image_url": "x"}, "controlnet/lora"),
        ({"preprocess": "canny"}, "controlnet/lora"),
        ({"image_url": "x", "strength": 0.5}, "image-to-image/lora"),
        ({"image_url": "x", "strength": 0.5, "control_scale": 1}, "image-to-image/lora"),
        ({"image_url": "x", "mask_image_url": "y"}, "inpainting/lora"),
        ({"image_url": "x", "mask_image_url": "y", "strength": 0.5, "control_end": 1}, "inpainting/lora"),
    ],
)
def test_body_without_a_model_id_goes_where_its_fields_are_taken(body: dict[str, Any], suffix: str) -> None:
    assert endpoint_for({"prompt": "a fox"} | body).model_id == f"tongyi-mai/z-image/turbo/{suffix}"


def test_search_by_text_and_category() -> None:
    found, total = search()
    assert (found[0], total) == (ENDPOINTS[MODEL_ID], 8)
    assert search("CONTROLNET", "image-to-image")[1] == 2
    assert search("no such thing") == ([], 0)
    assert search(category="audio") == ([], 0)


def test_a_page_past_the_end_is_empty_and_the_total_stays() -> None:
    assert search(offset=8) == ([], 8)
    assert search(limit=0) == ([], 8)
