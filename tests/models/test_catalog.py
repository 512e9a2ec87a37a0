from models.catalog import ENDPOINTS, categories, search
from models.inputs import ControlNetLoraInput

MODEL_ID = "tongyi-mai/z-image/turbo/controlnet/lora"


def test_the_documented_endpoint_is_there() -> None:
    endpoint = ENDPOINTS[MODEL_ID]
    assert endpoint.input_model is ControlNetLoraInput
    assert endpoint.output_schema["properties"]["image"]["type"] == "string"
    assert categories() == ["image-to-image"]


def test_search_by_text_and_category() -> None:
    assert search() == ([ENDPOINTS[MODEL_ID]], 1)
    assert search("CONTROLNET", "image-to-image")[1] == 1
    assert search("no such thing") == ([], 0)
    assert search(category="audio") == ([], 0)


def test_a_page_past_the_end_is_empty_and_the_total_stays() -> None:
    assert search(offset=1) == ([], 1)
    assert search(limit=0) == ([], 1)
