"""`zturbo serve`: the whole server on one machine, from one command."""

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from app.cli.exits import Exit, fail
from app.cli.machine import check_device, check_packages
from app.cli.programs import choose_model, declare_dead, print_line, programs, say
from app.cli.settings import (
    ControlNet,
    DataDir,
    Device,
    Host,
    LoraDir,
    Model,
    Port,
    RedisUrl,
    TlsCert,
    TlsKey,
    read_settings,
)
from app.terminal import tell

if TYPE_CHECKING:
    from app.config import Settings
    from worker.host.supervisor import Program

BACKLOG = 2048
"""Connections that wait while the API process is being restarted."""
READY_POLL_SECONDS = 0.2
READY_SECONDS = 2.0
"""Longest wait for one answer of /readyz."""
REDIS_SECONDS = 5.0
PATIENCE_SECONDS = 3.0
"""A reason not to be ready that lasts this long is told."""


def register(cli: typer.Typer) -> None:
    cli.command()(serve)


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    model: Model = None,
    controlnet: ControlNet = None,
    lora_dir: LoraDir = None,
    device: Device = None,
    redis_url: RedisUrl = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    public_base_url: Annotated[
        str | None,
        typer.Option(
            "--public-base-url",
            metavar="URL",
            help="Base of the URLs in answers, else the caller's own: --public-base-url https://pictures.lan",
        ),
    ] = None,
    io_workers: Annotated[
        int | None,
        typer.Option(
            "--io-workers",
            metavar="N",
            help="CPU processes that fetch, encode and store, else 4: --io-workers 8",
        ),
    ] = None,
) -> None:
    """Serve on this machine until stopped.

    Starts a Redis of its own, the API, io workers, and a worker for each GPU or the CPU.
    """
    from app.cli.server_log import server_log

    settings = read_settings(
        host=host,
        port=port,
        data_dir=data_dir,
        model=model,
        controlnet=controlnet,
        lora_dir=lora_dir,
        device=device,
        redis_url=redis_url,
        tls_cert=tls_cert,
        tls_key=tls_key,
        public_base_url=public_base_url,
        io_workers=io_workers,
    )
    settings = settings.model_copy(update={"data_dir": settings.data_dir.expanduser().resolve()})
    with server_log(settings.log_format):
        _serve(settings)


def _serve(settings: "Settings") -> None:
    from app.auth import check_exposure
    from app.errors import ConfigError
    from app.health import own_url
    from app.http.server import check_tls
    from models.errors import ModelError
    from worker.errors import WorkerError
    from worker.host.supervisor import Supervisor
    from worker.secret import Secret
    from worker.storage.backend import open_objects

    with ExitStack() as opened:
        try:
            keys = check_exposure(settings)
            check_tls(settings)
            check_device(settings.device)
            check_packages()
            make_folder(settings.data_dir)
            listener = opened.enter_context(listen(settings))
            store = opened.enter_context(find_store(settings))
            # What is wrong with them would else be told by each part in turn.
            open_objects(settings)
            Secret(settings.data_dir).derive("start")
            say(
                settings,
                f"data: {settings.data_dir}"
                + (f", pictures: {settings.storage}" if settings.storage else ""),
            )
            say(settings, f"redis: {store.described}")
            if keys.open:
                say(
                    settings,
                    "keys: none, so any token is taken, but from this machine only "
                    "(ZTURBO_API_KEYS=name:key)",
                )
            else:
                say(settings, f"keys: {len(keys)}")
            supervisor = Supervisor(
                programs(settings, choose_model(settings), store.url, listener),
                say=partial(print_line, settings.log_format),
                store=store.program,
                store_ready=store.ready,
                on_end=partial(declare_dead, settings, store.url),
            )
            address, at_port = listener.getsockname()[:2]
            url = own_url(address, at_port, tls=settings.tls_cert is not None)
            threading.Thread(target=_announce, args=(url, settings), daemon=True).start()
            supervisor.run()
        except (ConfigError, ModelError, WorkerError) as error:
            fail(str(error), Exit.CONFIG)
    say(settings, "stopped")


class Store(NamedTuple):
    """The Redis of this server: one that we run, or one that is there."""

    url: str
    described: str
    program: "Program | None"
    ready: Callable[[], bool]


@contextmanager
def find_store(settings: "Settings") -> "Iterator[Store]":
    """Raises SetupError when no server can be run, StoreUnavailable when the one that was named is away."""
    from worker.errors import StoreUnavailable
    from worker.host.embedded_redis import EmbeddedRedis, find_server, held

    if settings.redis_url:
        import redis

        try:
            with redis.Redis.from_url(settings.redis_url, socket_timeout=REDIS_SECONDS) as client:
                client.ping()
        except (redis.RedisError, ValueError) as error:
            # The URL may hold a password, so it is not repeated.
            raise StoreUnavailable(
                f"The Redis of --redis-url (ZTURBO_REDIS_URL) is not usable: {error}."
            ) from error
        yield Store(settings.redis_url, "the one of --redis-url", None, lambda: True)
        return
    folder = settings.data_dir / "redis"
    binary = find_server()
    with held(folder) as lock_fd:
        server = EmbeddedRedis(binary, folder, lock_fd, settings.appendfsync)
        yield Store(server.url, f"{binary}, which logs to {server.log}", server.program, server.ready)


def listen(settings: "Settings") -> socket.socket:
    """The listening socket; it outlives restarts of the API process. Raises ConfigError."""
    from app.errors import ConfigError

    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        # Python adds the address that it tried.
        reason = (error.strerror or "").partition(" (while")[0]
        raise ConfigError(
            f"Cannot listen on {settings.host}, port {settings.port}: {reason}. "
            "Choose another by --port; --port 0 takes a free one."
        ) from error


def make_folder(data_dir: Path) -> None:
    """Raises ConfigError unless it is there and can be written."""
    from app.errors import ConfigError

    try:
        # Prompts and pictures are nobody else's on this machine.
        data_dir.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The data folder {data_dir} cannot be made: {error.strerror}. Choose another by --data-dir."
        ) from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise ConfigError(
            f"The data folder {data_dir} is read-only for this user. Let this user write there, or choose "
            "another by --data-dir."
        )


def _announce(url: str, settings: "Settings") -> None:
    """Print `ready: URL` once a picture can be made; before that, the reasons that last."""
    import httpx

    told, since = "", time.monotonic()
    # Not verified: the certificate is for the name by which others know this machine.
    with httpx.Client(base_url=url, timeout=READY_SECONDS, trust_env=False, verify=False) as client:  # noqa: S501
        while True:
            with suppress(httpx.HTTPError, ValueError, KeyError):
                answer = client.get("/readyz")
                if answer.is_success:
                    ready = f"ready: {url}"
                    tell(ready) if settings.log_format == "text" else say(settings, ready)
                    return
                reason = " ".join(answer.json()["reasons"])
                if reason != told and time.monotonic() - since > PATIENCE_SECONDS:
                    say(settings, f"not ready yet: {reason}")
                    told, since = reason, time.monotonic()
            time.sleep(READY_POLL_SECONDS)
