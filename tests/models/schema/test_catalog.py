from models.schema.catalog import ENDPOINTS, categories, search
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


def test_search_by_text_and_category() -> None:
    found, total = search()
    assert (found[0], total) == (ENDPOINTS[MODEL_ID], 4)
    assert search("CONTROLNET", "image-to-image")[1] == 2
    assert search("no such thing") == ([], 0)
    assert search(category="audio") == ([], 0)


def test_a_page_past_the_end_is_empty_and_the_total_stays() -> None:
    assert search(offset=4) == ([], 4)
    assert search(limit=0) == ([], 4)
