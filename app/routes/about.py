"""The answer at the base URL: the playground for a browser, JSON for a program."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.deps import LinksDep
from app.routes.playground import page

PAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}

router = APIRouter(tags=["about"])


@router.head("/", include_in_schema=False)
@router.get("/", responses=PAGE, response_model=dict[str, str])
def about(request: Request, links: LinksDep) -> Response:
    """What this is and where to go on; the playground where `Accept` names text/html."""
    if "text/html" in request.headers.get("accept", ""):
        answer = page(request)
        answer.headers["Vary"] = "Accept, Accept-Encoding"
        return answer
    body = {
        "name": "zturbo",
        "about": "Z-Image-Turbo with ControlNet-Union and LoRA, over the hosted endpoint's HTTP contract.",
        "models": f"{links.base}/v1/models",
        "docs": f"{links.base}/docs",
        "openapi": f"{links.base}/openapi.json",
        "ready": f"{links.base}/readyz",
    }
    return JSONResponse(body, headers={"Vary": "Accept"})
