"""`zturbo api`, `zturbo worker` and `zturbo health`: the server's parts singly, for compose and `serve`."""

import gc
import os
import socket
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import Exit, fail
from app.cli.machine import check_device, check_packages
from app.cli.settings import Host, Model, Port, RedisUrl, TlsCert, TlsKey, read_settings
from worker.logs import start_logging

if TYPE_CHECKING:
    from app.config import Settings


class Kind(StrEnum):
    io = "io"
    gpu = "gpu"
    all = "all"


class Part(StrEnum):
    api = "api"
    worker = "worker"


def register(cli: typer.Typer) -> None:
    for command in (api, worker, health):
        cli.command()(command)


def api(
    host: Host = None,
    port: Port = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    redis_url: RedisUrl = None,
    listen_fd: Annotated[
        int | None, typer.Option("--listen-fd", hidden=True, help="A socket that `serve` listens on already.")
    ] = None,
) -> None:
    """Serve HTTP alone: no Redis and no worker is started."""
    import uvicorn

    from app.errors import ConfigError
    from app.http.server import allow_open_files, server_config
    from app.main import create_app
    from worker.errors import SetupError
    from worker.secret import Secret

    settings = read_settings(host=host, port=port, tls_cert=tls_cert, tls_key=tls_key, redis_url=redis_url)
    start_logging(settings.log_format)
    try:
        allow_open_files()
        Secret(settings.data_dir).derive("start")
        server = uvicorn.Server(server_config(create_app(settings), settings))
    except (ConfigError, SetupError) as error:
        fail(str(error), Exit.CONFIG)
    # What is there now stays: looking through it again for garbage would hold every call up for 60 ms.
    gc.freeze()
    server.run(sockets=None if listen_fd is None else [socket.socket(fileno=listen_fd)])


def worker(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="io|gpu|all",
            help="io fetches, encodes and stores, gpu makes the pictures, all is io workers and one for each "
            "GPU: zturbo worker gpu",
        ),
    ],
    redis_url: RedisUrl = None,
    model: Model = None,
) -> None:
    """Run one worker, or all for this machine, until stopped."""
    from worker.queue.connection import DEFAULT_REDIS_URL
    from worker.runtime.process import run_worker

    settings = read_settings(redis_url=redis_url, model=model)
    if kind == Kind.all:
        check_device(settings.device)
    if kind != Kind.io:
        check_packages()
    # Threads of torch that wait by spinning take the cores from those that work, and from the rest of this
    # server: on two busy cores a picture of the demo model took five times as long. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    redis_url = settings.redis_url or DEFAULT_REDIS_URL
    if kind == Kind.all:
        _run_all(settings, redis_url)
        return
    start_logging(settings.log_format)
    run_worker("io" if kind == Kind.io else "gpu", settings, redis_url)


def _run_all(settings: "Settings", redis_url: str) -> None:
    from app.cli.programs import choose_model, declare_dead, print_line, programs
    from app.cli.server_log import server_log
    from models.errors import ModelError
    from worker.host.supervisor import Supervisor

    settings = settings.model_copy(update={"data_dir": settings.data_dir.expanduser().resolve()})
    with server_log(settings.log_format):
        try:
            parts = programs(settings, choose_model(settings), redis_url, None)
        except ModelError as error:
            fail(str(error), Exit.CONFIG)
        Supervisor(
            parts,
            say=partial(print_line, settings.log_format),
            on_end=partial(declare_dead, settings, redis_url),
        ).run()


def health(
    part: Annotated[
        Part, typer.Argument(metavar="api|worker", help="What runs on this machine: zturbo health api")
    ],
) -> None:
    """Exit 0 when the part that runs here is well."""
    from app.health import api_fault, own_url
    from worker.runtime import heartbeat

    if part == Part.api:
        settings = read_settings()
        fault = api_fault(own_url(settings.host, settings.port, tls=settings.tls_cert is not None))
    else:
        fault = heartbeat.fault()
    if fault:
        fail(fault, Exit.UNAVAILABLE)
