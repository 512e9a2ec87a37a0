"""The route that tells how busy this server is, for `zturbo top`; a monitoring system reads /metrics."""

from dataclasses import asdict

from fastapi import APIRouter

from app.deps import RequestsDep
from app.schemas import StatsBody

router = APIRouter(prefix="/v1/stats", tags=["stats"])


@router.get("", response_model_exclude_none=True)
async def get_stats(requests: RequestsDep) -> StatsBody:
    """The queue, the workers and how quickly pictures are made, as of now."""
    return StatsBody(**asdict(await requests.stats()))
