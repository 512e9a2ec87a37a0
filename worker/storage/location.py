"""Where all processes of one server keep what they share: the API tells it in Redis, a worker goes by it.

A worker that kept pictures in a place of its own would finish requests whose pictures nobody can fetch. So it
takes no request before it found that it means the same folder or store. Credentials are never told.
"""

import json
import os

from worker.config import WorkerSettings
from worker.errors import SetupError
from worker.secret import Secret

TOLD_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_REGION")


def publish(settings: WorkerSettings) -> str:
    """What the API writes in Redis: the store's address, or what only a process with its folder can know."""
    if settings.storage:
        variables = {name: os.environ[name] for name in TOLD_VARIABLES if os.environ.get(name)}
        return json.dumps({"storage": settings.storage, "variables": variables})
    return json.dumps({"folder": Secret(settings.data_dir).derive("storage").hex()})


def adopt(told: str, settings: WorkerSettings) -> WorkerSettings:
    """The settings of a worker that keeps things where the API does.

    Raises SetupError when this worker would keep them elsewhere.
    """
    place = json.loads(told)
    if "folder" in place:
        if settings.storage or told != publish(settings):
            raise SetupError(
                "The API keeps pictures in its own folder, this worker would keep them elsewhere; "
                "let both have one ZTURBO_DATA_DIR, or give the API a ZTURBO_STORAGE."
            )
        return settings
    if settings.storage not in ("", place["storage"]):
        raise SetupError(
            f"The API keeps pictures in {place['storage']}, this worker in {settings.storage}; "
            "give both the same ZTURBO_STORAGE."
        )
    for name, value in place["variables"].items():
        os.environ.setdefault(name, value)
    return settings.model_copy(update={"storage": place["storage"]})
