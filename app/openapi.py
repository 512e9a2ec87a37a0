"""The OpenAPI document: FastAPI's own, with the bodies and parameters that the routes read by themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.hf.bodies import HubInput
from app.openai.bodies import ImagesInput
from app.submission import IDEMPOTENCY_KEY, PREFER, WAIT, WEBHOOK, Parameter
from models.schema.catalog import ENDPOINTS
from models.schema.inputs import ExpandInput, PreprocessInput

SCHEMAS = "#/components/schemas/"

_HELD = (WAIT, PREFER)
PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "/v1/models/{model_id}": (*_HELD, WEBHOOK, IDEMPOTENCY_KEY),
    "/v1/preprocess": _HELD,
    "/v1/expand": _HELD,
    "/v1/images/generations": (*_HELD, IDEMPOTENCY_KEY),
    "/v1/images/edits": (*_HELD, IDEMPOTENCY_KEY),
    "/hf/{model_id}": (*_HELD, IDEMPOTENCY_KEY),
}
"""By the path that takes them."""


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        bodies: dict[str, list[type[BaseModel]]] = {
            "/v1/models/{model_id}": [endpoint.input_model for endpoint in ENDPOINTS.values()],
            "/v1/preprocess": [PreprocessInput],
            "/v1/expand": [ExpandInput],
            "/v1/images/generations": [ImagesInput],
            "/hf/{model_id}": [HubInput],
        }
        inputs = [model for models in bodies.values() for model in models]
        _, schemas = models_json_schema(
            [(model, "validation") for model in inputs], ref_template=SCHEMAS + "{model}"
        )
        components = document["components"]["schemas"]
        components.update(schemas["$defs"])
        _correct_errors(document)
        for path, models in bodies.items():
            document["paths"][path]["post"]["requestBody"] = _json_body(models)
        document["paths"]["/v1/images/edits"]["post"]["requestBody"] = _form(ImagesInput)
        for path, parameters in PARAMETERS.items():
            documented = [parameter.documented() for parameter in parameters]
            document["paths"][path]["post"].setdefault("parameters", []).extend(documented)
        for path in ("/v1/models/{model_id}", "/hf/{model_id}"):
            for operation in document["paths"][path].values():
                (model_id,) = (each for each in operation["parameters"] if each["name"] == "model_id")
                model_id["schema"]["enum"] = list(ENDPOINTS)
        app.openapi_schema = document
    return app.openapi_schema


def _json_body(models: list[type[BaseModel]]) -> dict[str, Any]:
    schemas = [{"$ref": SCHEMAS + model.__name__} for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _form(model: type[BaseModel]) -> dict[str, Any]:
    """The fields of `model` and a file `image`."""
    image = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}},
    }
    schema = {"allOf": [{"$ref": SCHEMAS + model.__name__}, image]}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _correct_errors(document: dict[str, Any]) -> None:
    """Takes out FastAPI's own error bodies, which this server never sends; ours are JSON on every route."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            for status, response in operation["responses"].items():
                if status >= "400":
                    (schema,) = response["content"].values()
                    response["content"] = {"application/json": schema}
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
