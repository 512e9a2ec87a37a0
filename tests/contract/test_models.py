"""GET /v1/models, /v1/models/categories and /v1/models/{model_id}."""

import httpx
import pytest

from tests.support.http_api import MODEL, SUBMIT

pytestmark = pytest.mark.anyio


async def test_model_has_the_published_fields_and_costs_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.get(SUBMIT)

    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == [
        *("model_id", "display_name", "description", "categories"),
        *("input_schema", "output_schema", "base_price_usd", "id", "object", "created", "owned_by"),
        "dialects",
    ]
    assert body["model_id"] == MODEL
    assert body["base_price_usd"] == 0
    assert set(body["output_schema"]["properties"]) == {"image", "images"}


async def test_input_schema_is_the_published_one_and_num_images_and_seed_variance(
    http: httpx.AsyncClient,
) -> None:
    schema = (await http.get(SUBMIT)).json()["input_schema"]

    assert schema["required"] == ["prompt", "image_url", "loras"]
    defaults = {name: field["default"] for name, field in schema["properties"].items() if "default" in field}
    assert defaults == {
        "image_size": "auto",
        "control_scale": 0.9,
        "control_start": 0.0,
        "control_end": 0.4,
        "preprocess": "none",
        "num_inference_steps": 8,
        "seed": 0,
        "num_images": 1,
        "seed_variance": 0.0,
        "enable_prompt_expansion": False,
        "output_format": "png",
    }
    assert set(schema["properties"]["preprocess"]["enum"]) == {"none", "canny", "depth", "pose"}
    assert set(schema["properties"]["output_format"]["enum"]) == {"jpeg", "png", "webp"}
    assert schema["properties"]["loras"]["maxItems"] == 3


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/"])
async def test_list_has_every_model_and_their_number(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.json()["total"] == len(answer.json()["models"]) > 0
    assert answer.json()["models"][0] == (await http.get(SUBMIT)).json()


@pytest.mark.parametrize(
    ("query", "found", "total"),
    [
        ("search=CONTROLNET", 2, 2),
        ("search=no-such-model", 0, 0),
        ("category=text-to-image", 2, 2),
        ("category=music", 0, 0),
        ("offset=7", 1, 8),
        ("limit=1&offset=0", 1, 8),
    ],
)
async def test_list_is_searched_and_paged(
    http: httpx.AsyncClient, query: str, found: int, total: int
) -> None:
    body = (await http.get(f"/v1/models?{query}")).json()
    assert (len(body["models"]), body["total"]) == (found, total)


async def test_page_has_openais_list_of_all_models(http: httpx.AsyncClient) -> None:
    body = (await http.get("/v1/models?limit=1")).json()
    assert (body["object"], len(body["data"])) == ("list", body["total"])
    for model in body["data"]:
        one = (await http.get(f"/v1/models/{model['id'].replace('/', '%2F')}")).json()
        assert model == {name: one[name] for name in ("id", "object", "created", "owned_by")}


async def test_bad_page_is_a_422_that_lists_every_fault(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/models?limit=0&offset=x")
    assert answer.status_code == 422
    assert answer.json()["error_code"] == 422001
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["query", "limit"], ["query", "offset"]]


async def test_categories_are_listed(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/models/categories")).json() == {
        "categories": ["image-to-image", "text-to-image"]
    }


async def test_unknown_model_is_a_404(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/models/nobody/nothing")
    assert answer.status_code == 404
    assert answer.json()["error_code"] == 400001
