"""The control maps that can be made now, as the GPU workers tell: only they know the weights they have."""

from typing import Any, get_args

from models.job import Preprocess
from models.weights.availability import detector_fault, pull_command
from worker.errors import StoreUnavailable
from worker.queue.requests import RequestStore

NEED_WEIGHTS = ("depth", "pose")


async def missing_detectors(requests: RequestStore) -> dict[str, int]:
    """By `preprocess` that no GPU worker can serve: the bytes of weights that are missing.

    Empty while no worker tells: then nobody here knows, and nothing is refused.
    """
    try:
        workers = [worker for worker in await requests.workers() if worker.kind == "gpu"]
    except StoreUnavailable:
        return {}
    if not workers:
        return {}
    return {
        preprocess: size
        for preprocess, size in workers[0].lacks.items()
        if all(preprocess in worker.lacks for worker in workers)
    }


def with_availability(schema: dict[str, Any], missing: dict[str, int]) -> dict[str, Any]:
    """An input's JSON schema whose `preprocess` says under `x-availability` which values can be used now.

    Of one that cannot it says why, the command that mends it and how many bytes that fetches.
    """
    if "preprocess" in schema["properties"]:
        schema["properties"]["preprocess"]["x-availability"] = {
            preprocess: _told(preprocess, missing.get(preprocess)) for preprocess in get_args(Preprocess)
        }
    return schema


def _told(preprocess: str, size: int | None) -> dict[str, Any]:
    if size is None:
        return {"available": True}
    reason = detector_fault(preprocess, size).partition(": ")[2]
    return {"available": False, "reason": reason, "command": pull_command(), "size": size}
