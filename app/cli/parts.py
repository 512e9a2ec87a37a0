"""`zturbo api`, `zturbo worker` and `zturbo health`: the server's parts singly, for compose and `serve`."""

import asyncio
import os
import socket
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import Exit, fail
from app.cli.settings import Host, Model, Port, RedisUrl, read_settings
from worker.logs import start_logging

if TYPE_CHECKING:
    from app.config import Settings

HEALTH_SECONDS = 4.0


class Kind(StrEnum):
    io = "io"
    gpu = "gpu"


class Part(StrEnum):
    api = "api"
    worker = "worker"


def register(cli: typer.Typer) -> None:
    for command in (api, worker, health):
        cli.command()(command)


def api(
    host: Host = None,
    port: Port = None,
    redis_url: RedisUrl = None,
    listen_fd: Annotated[
        int | None, typer.Option("--listen-fd", hidden=True, help="A socket that `serve` listens on already.")
    ] = None,
) -> None:
    """Serve HTTP alone: no Redis and no worker is started."""
    import uvicorn

    from app.errors import ConfigError
    from app.main import create_app
    from app.server import server_config
    from worker.errors import SetupError

    settings = read_settings(host=host, port=port, redis_url=redis_url)
    start_logging(settings.log_format)
    try:
        server = uvicorn.Server(server_config(create_app(settings), settings))
    except (ConfigError, SetupError) as error:
        fail(str(error), Exit.CONFIG)
    server.run(sockets=None if listen_fd is None else [socket.socket(fileno=listen_fd)])


def worker(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="io|gpu", help="io fetches, encodes and stores, gpu makes the pictures: zturbo worker gpu"
        ),
    ],
    redis_url: RedisUrl = None,
    model: Model = None,
) -> None:
    """Run one worker until it is stopped."""
    from worker.runner import run_worker
    from worker.store import DEFAULT_REDIS_URL

    # Threads of torch that wait by spinning take the cores from those that work, and from the rest of this
    # server: on two busy cores a picture of the demo model took five times as long. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = read_settings(redis_url=redis_url, model=model)
    start_logging(settings.log_format)
    run_worker(kind.value, settings, settings.redis_url or DEFAULT_REDIS_URL)


def health(
    part: Annotated[
        Part, typer.Argument(metavar="api|worker", help="What runs on this machine: zturbo health api")
    ],
) -> None:
    """Exit 0 when the part that runs here is well."""
    settings = read_settings()
    fault = _api_fault(settings) if part == Part.api else _worker_fault(settings)
    if fault:
        fail(fault, Exit.UNAVAILABLE)


def _api_fault(settings: "Settings") -> str | None:
    import httpx

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    try:
        httpx.get(f"http://{host}:{settings.port}/healthz", timeout=HEALTH_SECONDS).raise_for_status()
    except httpx.HTTPError as error:
        return f"The API does not answer: {error}."
    return None


def _worker_fault(settings: "Settings") -> str | None:
    """A worker is well when its entry is fresh and says that it takes requests; its id names its machine."""
    from redis.exceptions import RedisError

    from worker.registry import read_workers
    from worker.store import DEFAULT_REDIS_URL, connect_async

    async def here() -> list[str]:
        async with connect_async(settings.redis_url or DEFAULT_REDIS_URL) as client:
            workers = await read_workers(client)
        return [worker.state for worker in workers if f"-{socket.gethostname()}-" in worker.id]

    try:
        states = asyncio.run(here())
    except RedisError as error:
        return f"Redis does not answer: {error}."
    if set(states) & {"ready", "busy"}:
        return None
    return f"No worker of this machine takes requests; seen: {', '.join(states) or 'none'}."
