"""The front door, for whoever opens the base URL."""

from fastapi import APIRouter

from app.deps import LinksDep

router = APIRouter(tags=["about"])


@router.get("/")
async def about(links: LinksDep) -> dict[str, str]:
    """What this is and where to go on."""
    return {
        "name": "zturbo",
        "about": "Z-Image-Turbo with ControlNet-Union and LoRA, over the hosted endpoint's HTTP contract.",
        "models": f"{links.base}/v1/models",
        "openapi": f"{links.base}/openapi.json",
        "ready": f"{links.base}/readyz",
    }
