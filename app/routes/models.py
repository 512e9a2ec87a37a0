"""The routes of the model catalog, and the one that submits a request to a model."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.answers import result_body
from app.availability import missing_detectors, with_availability
from app.deps import LinksDep, RequestsDep
from app.dialects import dialects_of
from app.errors import UnknownModel
from app.links import Links
from app.schemas import (
    CategoriesBody,
    ListedModel,
    ModelBody,
    ModelsBody,
    SubmitBody,
    WaitedBody,
    errors_answered,
)
from app.submission import Submission
from models.schema.catalog import ENDPOINTS, Endpoint, categories, search

MAX_PAGE = 1000

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "/{model_id:path}",
    response_model=SubmitBody | WaitedBody,
    response_model_exclude_none=True,
    responses=errors_answered(408, 413, 415, 429, 507),
)
async def submit(model_id: str, call: Request, response: Response) -> Response | WaitedBody:
    """Queue one request. The URLs tell how it fares; unknown fields are ignored and named in `warnings`."""
    submission, endpoint = Submission(call), find_endpoint(model_id)
    taken, warnings = await submission.submit(
        endpoint.input_model, endpoint.model_id, submission.webhook(), dialect="hosted"
    )
    request_id, links = taken.request_id, submission.links
    urls = {f"{leaf}_url": links.request(request_id, leaf) for leaf in ("status", "result", "cancel")}
    if submission.wait:
        response.headers["Preference-Applied"] = f"wait={submission.wait:g}"
        record = await submission.outcome(request_id, submission.wait)
        if record is not None:
            return WaitedBody(**result_body(record, links, include_cost=False).wire(), **urls)
    # Sent as it is: FastAPI would choose between two bodies and check them again, a twentieth of a submit.
    body = SubmitBody(request_id=request_id, **urls, warnings=warnings or None)
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")


@router.head("", include_in_schema=False)
@router.get("")
async def list_models(
    requests: RequestsDep,
    links: LinksDep,
    search_text: Annotated[
        str | None, Query(alias="search", description="In id, name or description.")
    ] = None,
    category: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> ModelsBody:
    """The models that match, one page of them, and how many match in all."""
    found, total = search(search_text, category, limit, offset)
    missing = await missing_detectors(requests)
    return ModelsBody(
        models=[model_body(endpoint, missing, links) for endpoint in found],
        total=total,
        # OpenAI's clients ask for no further page.
        data=[ListedModel(id=model_id, owned_by=owned_by(model_id)) for model_id in ENDPOINTS],
    )


@router.get("/categories")
async def list_categories() -> CategoriesBody:
    """The categories that models are in."""
    return CategoriesBody(categories=categories())


@router.head("/{model_id:path}", include_in_schema=False)
@router.get("/{model_id:path}")
async def get_model(model_id: str, requests: RequestsDep, links: LinksDep) -> ModelBody:
    """One model with the JSON schema of its input, and which values of `preprocess` can be used now."""
    return model_body(find_endpoint(model_id), await missing_detectors(requests), links)


def find_endpoint(model_id: str) -> Endpoint:
    """Raises UnknownModel."""
    endpoint = ENDPOINTS.get(model_id)
    if endpoint is None:
        raise UnknownModel(model_id)
    return endpoint


def model_body(endpoint: Endpoint, missing: dict[str, int], links: Links) -> ModelBody:
    return ModelBody(
        model_id=endpoint.model_id,
        display_name=endpoint.display_name,
        description=endpoint.description,
        categories=list(endpoint.categories),
        input_schema=with_availability(endpoint.input_model.model_json_schema(), missing),
        output_schema=endpoint.output_schema,
        id=endpoint.model_id,
        owned_by=owned_by(endpoint.model_id),
        dialects=dialects_of(endpoint, links),
    )


def owned_by(model_id: str) -> str:
    return model_id.partition("/")[0]
