"""The fields of all inputs by name, as the command line and language models are told of them."""

import pytest

from models.schema.catalog import ENDPOINTS, endpoint_for
from models.schema.input_fields import input_fields
from tests.support.made_up import MODEL_ID, add_made_up_endpoint


def test_every_field_of_every_endpoint_is_there_and_follows_what_it_follows_in_an_input() -> None:
    names = list(input_fields())
    assert names[:6] == ["prompt", "image_url", "mask_image_url", "strength", "loras", "image_size"]
    assert set(names) == {name for each in ENDPOINTS.values() for name in each.input_model.model_fields}
    assert [name for name, field in input_fields().items() if field.is_required] == ["prompt"]


@pytest.mark.parametrize(
    ("name", "limits", "default"),
    [
        ("prompt", "", ""),
        ("loras", "", ""),
        ("seed", "", "0"),
        ("strength", "0 to 1", "0.6, or 1 with <mask_image_url>"),
        ("control_scale", "0 to 1", "0.9, or 0.75 with <mask_image_url>"),
        ("num_inference_steps", "1 to 8", "8"),
        ("preprocess", "none, canny, depth or pose", "none"),
        ("enable_prompt_expansion", "", "off"),
    ],
)
def test_limits_and_defaults_are_told_in_words(name: str, limits: str, default: str) -> None:
    field = input_fields()[name]
    assert (field.limits(), field.default(lambda other: f"<{other}>")) == (limits, default)


def test_most_is_told_where_endpoints_allow_less() -> None:
    size = input_fields()["image_size"]
    assert size.limits().endswith("landscape_16_9 or auto")
    assert size.default(str) == "square_hd, or auto with image_url"
    assert size.description == "Size of the picture; `auto` keeps the shape of the input image"


def test_pictures_are_called_by_what_they_are() -> None:
    fields = input_fields().values()
    assert [field.short_name for field in fields if field.is_picture] == ["image", "mask"]
    assert (
        input_fields()["image_url"].description == "The image that guides the picture, or the image to change"
    )


def test_body_with_a_field_of_one_endpoint_alone_is_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    add_made_up_endpoint(monkeypatch)
    assert endpoint_for({"prompt": "a fox", "grain": 0.5, "stray": 1}).model_id == MODEL_ID
    assert endpoint_for({"grain": 0.5}).model_id == "tongyi-mai/z-image/turbo/lora"
    assert endpoint_for({"prompt": "a fox"}).model_id == "tongyi-mai/z-image/turbo/lora"
    assert input_fields()["seed"].default(str) == "0"
