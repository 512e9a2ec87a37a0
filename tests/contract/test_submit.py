"""POST /v1/models/{model_id}: the submit body, and every refusal of it."""

import re

import httpx
import pytest

from tests.support.http_api import DOCUMENTED_INPUT, MODEL, SUBMIT
from worker.queue.requests import RequestStore

pytestmark = pytest.mark.anyio


async def test_documented_example_is_answered_with_four_fields(http: httpx.AsyncClient) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT)

    assert answer.status_code == 200
    body = answer.json()
    request_id = body["request_id"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", request_id)
    assert body == {
        "request_id": request_id,
        "status_url": f"http://localhost:8000/v1/requests/{request_id}/status",
        "result_url": f"http://localhost:8000/v1/requests/{request_id}/result",
        "cancel_url": f"http://localhost:8000/v1/requests/{request_id}/cancel",
    }


async def test_input_is_recorded_with_its_defaults(http: httpx.AsyncClient, requests: RequestStore) -> None:
    request_id = (await http.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]

    record = await requests.get(request_id)
    assert record is not None
    assert record.model_id == MODEL
    assert record.owner == "local"
    assert record.input == DOCUMENTED_INPUT | {
        "image_size": "auto",
        "control_scale": 0.9,
        "control_start": 0.0,
        "control_end": 0.4,
        "preprocess": "none",
        "num_inference_steps": 8,
        "seed": 0,
        "num_images": 1,
        "enable_prompt_expansion": False,
        "output_format": "png",
    }


async def test_documented_example_of_the_text_model_with_loras_is_a_prompt_alone(
    http: httpx.AsyncClient, requests: RequestStore
) -> None:
    answer = await http.post("/v1/models/tongyi-mai/z-image/turbo/lora", json={"prompt": "A lighthouse"})

    assert answer.status_code == 200
    record = await requests.get(answer.json()["request_id"])
    assert record is not None
    assert record.input["loras"] == []


async def test_no_two_requests_share_an_id(http: httpx.AsyncClient) -> None:
    ids = {(await http.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(len(request_id) == 32 for request_id in ids)


async def test_unknown_fields_are_named_in_warnings(http: httpx.AsyncClient) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT | {"guidance_scale": 7, "n": 2})

    assert answer.status_code == 200
    warnings = answer.json()["warnings"]
    assert len(warnings) == 2
    assert "guidance_scale" in warnings[0]
    assert "'n'" in warnings[1]


async def test_every_fault_is_listed_at_once(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        SUBMIT,
        json={
            "image_url": "ftp://example.com/x",
            "loras": [{"path": "a/b", "scale": 9}],
            "image_size": "huge",
            "seed": True,
        },
    )

    assert answer.status_code == 422
    body = answer.json()
    assert body["error_code"] == 422001
    assert body["message"] == body["error_message"]
    assert [fault["loc"] for fault in body["detail"]] == [
        ["body", "prompt"],
        ["body", "image_url"],
        ["body", "loras", 0, "scale"],
        ["body", "image_size"],
        ["body", "seed"],
    ]
    assert all(set(fault) == {"loc", "msg", "type"} for fault in body["detail"])
    for sentence in (
        "prompt: is required",
        "loras[0].scale: ",
        "image_size: 'huge' is not one of 'square_hd'",
    ):
        assert sentence in body["error_message"]


async def test_value_outside_a_list_of_choices_is_an_enum_fault(http: httpx.AsyncClient) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT | {"image_size": "huge"})

    [fault] = answer.json()["detail"]
    assert fault["loc"] == ["body", "image_size"]
    assert fault["type"] == "enum"
    assert answer.json()["error_message"].startswith("image_size: 'huge' is not one of ")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "json_invalid"),
        (b"{", "json_invalid"),
        (b'{"prompt": NaN}', "json_invalid"),
        (b'{"prompt": "\\ud800"}', "json_invalid"),
        (b"\xff\xfe", "json_invalid"),
        (b"[" * 10_000, "json_invalid"),
        (b"[" * 100_000, "too_long"),
        (b"[]", "model_type"),
        (b'"prompt"', "model_type"),
        (b"null", "model_type"),
    ],
)
async def test_body_that_is_no_json_object_is_a_422(http: httpx.AsyncClient, body: bytes, kind: str) -> None:
    answer = await http.post(SUBMIT, content=body)

    assert answer.status_code == 422
    assert answer.json()["error_code"] == 422001
    assert [(fault["loc"], fault["type"]) for fault in answer.json()["detail"]] == [(["body"], kind)]
    assert answer.json()["error_message"].startswith("body: ")


async def test_callers_value_is_quoted_in_short(http: httpx.AsyncClient) -> None:
    answer = await http.post(SUBMIT, json=DOCUMENTED_INPUT | {"image_size": "x" * 10_000})
    assert len(answer.json()["error_message"]) < 300


async def test_unknown_model_is_a_404_that_names_it(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/models/tongyi-mai/other", json=DOCUMENTED_INPUT)

    assert answer.status_code == 404
    assert answer.json()["error_code"] == 400001
    assert "'tongyi-mai/other'" in answer.json()["error_message"]


async def test_slash_after_the_model_id_is_taken(http: httpx.AsyncClient) -> None:
    assert (await http.post(f"{SUBMIT}/", json=DOCUMENTED_INPUT)).status_code == 200


async def test_content_type_does_not_matter(http: httpx.AsyncClient) -> None:
    answer = await http.post(SUBMIT, content=httpx.Request("POST", "http://x", json=DOCUMENTED_INPUT).content)
    assert answer.status_code == 200
