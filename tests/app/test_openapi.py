"""The OpenAPI document: what the server gives, and that it is whole."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.openapi import describe
from models.schema.catalog import ENDPOINTS

pytestmark = pytest.mark.anyio


async def test_server_gives_the_same_document(app: FastAPI, http: httpx.AsyncClient) -> None:
    assert (await http.get("/openapi.json")).json() == describe(app)


async def test_submit_names_the_input_of_the_model_and_every_refusal(app: FastAPI) -> None:
    submit = describe(app)["paths"]["/v1/models/{model_id}"]["post"]
    schema = submit["requestBody"]["content"]["application/json"]["schema"]
    names = [endpoint.input_model.__name__ for endpoint in ENDPOINTS.values()]
    assert names[:2] == ["ControlNetLoraInput", "TurboInput"]
    assert schema == {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}
    assert set(submit["responses"]) == {
        "200",
        "401",
        "403",
        "404",
        "408",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
        "507",
    }


async def test_submit_names_what_may_stand_beside_the_body(app: FastAPI) -> None:
    parameters = app.openapi()["paths"]["/v1/models/{model_id}"]["post"]["parameters"]

    assert {(each["in"], each["name"]) for each in parameters} == {
        *(("path", "model_id"), ("query", "wait"), ("query", "webhook")),
        *(("header", "Prefer"), ("header", "Idempotency-Key")),
    }


async def test_every_reference_leads_somewhere(app: FastAPI) -> None:
    document = describe(app)

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= set(
        schemas
    )
