"""The processes of one machine under our supervisor: their commands, settings and messages."""

import json
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.machine import check_published
from app.terminal import tell
from models.command import zturbo

if TYPE_CHECKING:
    from app.config import Settings
    from worker.host.supervisor import Program
    from worker.logs import LogFormat

REDIS_SECONDS = 2.0
LARGE_BYTES = 2**30
"""The weights of a model that is slow without a GPU."""
STOP_MARGIN_SECONDS = 10.0
"""What a worker may take beside its drain time to end; the API's calls in flight have as long."""


def programs(
    settings: "Settings", model: str, redis_url: str, listener: socket.socket | None
) -> "list[Program]":
    """The workers, and the API if there is something to listen on.

    Each child gets by ZTURBO_ variables what was decided here.
    """
    from models.gpus import visible_gpus
    from worker.host.supervisor import Program

    env = {
        "ZTURBO_DATA_DIR": str(settings.data_dir),
        "ZTURBO_MODEL": model,
        "ZTURBO_CONTROLNET": settings.controlnet,
        "ZTURBO_DEVICE": settings.device,
        "ZTURBO_REDIS_URL": redis_url,
        "PYTHONUNBUFFERED": "1",
    }
    if settings.lora_dir:
        env["ZTURBO_LORA_DIR"] = str(settings.lora_dir.expanduser().resolve())
    for name, path in (("ZTURBO_TLS_CERT", settings.tls_cert), ("ZTURBO_TLS_KEY", settings.tls_key)):
        if path:
            env[name] = str(path.resolve())
    if settings.public_base_url:
        env["ZTURBO_PUBLIC_BASE_URL"] = settings.public_base_url
    stop_seconds = settings.drain_seconds + STOP_MARGIN_SECONDS

    def part(name: str, *arguments: str, **more: str) -> Program:
        # -P: a folder named `app` where the user happens to be is none of ours.
        command = (sys.executable, "-P", "-m", "app", *arguments)
        fds = (listener.fileno(),) if name == "api" and listener else ()
        return Program(name, command, env={**env, **more}, pass_fds=fds, stop_seconds=stop_seconds)

    found = []
    if listener:
        host, port = listener.getsockname()[:2]
        env |= {"ZTURBO_HOST": host, "ZTURBO_PORT": str(port)}
        found.append(part("api", "api", "--listen-fd", str(listener.fileno())))
    found += [part(f"io-{number}", "worker", "io") for number in range(1, settings.io_workers + 1)]
    gpus = visible_gpus() if settings.device in ("auto", "cuda") else []
    found += [
        part(f"gpu-{number}", "worker", "gpu", CUDA_VISIBLE_DEVICES=gpu) for number, gpu in enumerate(gpus)
    ]
    return found if gpus else [*found, part("gpu", "worker", "gpu")]


def choose_model(settings: "Settings") -> str:
    """The model that the workers load, said with its reason, and fetched when a GPU waits that it fits.

    Raises WeightsMissing, HubError when fetching fails, and OutOfMemory for a model that was asked for and
    would be fetched for nothing.
    """
    from app.cli.weights import bring_missing
    from models.errors import ModelError, WeightsMissing
    from models.gpus import gpu_present
    from models.weights.resolve import DEMO, REAL, model_choice, resolve_model

    chosen = model_choice(settings)
    asked = settings.model != "auto"
    on_gpu = settings.device != "cpu" and gpu_present()
    if chosen == DEMO:
        why = "as asked" if asked else f"no GPU and no weights here; `{zturbo()} pull` brings the real ones"
        return _demo(settings, why)
    settings = settings.model_copy(update={"model": chosen})
    try:
        folder = resolve_model(settings)
    except WeightsMissing as missing:
        if not on_gpu or Path(chosen).expanduser().is_dir():
            raise
        try:
            if chosen == REAL:
                check_published(settings)
        except ModelError as error:
            if asked:
                raise
            return _demo(settings, f"the real model would not run here. {error}")
        say(settings, str(missing))
        say(settings, "There is a GPU, so they are fetched now.")
        bring_missing(settings)
        folder = resolve_model(settings)
    say(settings, f"model: {chosen} ({'as asked' if asked else 'its weights are here'}), {folder}")
    if not on_gpu and sum(each.stat().st_size for each in folder.rglob("*.safetensors")) > LARGE_BYTES:
        say(settings, "There is no GPU, so a picture takes minutes; the gpu part says below how many.")
    return chosen


def _demo(settings: "Settings", why: str) -> str:
    from models.weights.resolve import DEMO

    say(settings, f"model: {DEMO}, which draws small pictures of a few simple things ({why})")
    return DEMO


def declare_dead(settings: "Settings", redis_url: str, name: str, pid: int) -> None:
    """Let the requests of a worker process that just died go on at once."""
    kind, _, _ = name.partition("-")
    if kind not in ("io", "gpu"):
        return
    import redis

    from worker.queue.work_queue import WorkQueue

    client = redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=REDIS_SECONDS)
    # While Redis is away too, the leases run out by themselves.
    with client, suppress(redis.RedisError):
        WorkQueue(client, settings).declare_dead(kind, f"{kind}-{socket.gethostname()}-{pid}-")  # type: ignore[arg-type]


def say(settings: "Settings", sentence: str) -> None:
    print_line(settings.log_format, "zturbo", sentence)


def print_line(log_format: "LogFormat", part: str, line: str) -> None:
    tell(log_line(log_format, part, line))


def log_line(log_format: "LogFormat", part: str, line: str) -> str:
    """A line that a part of this server printed, and which part; what is JSON already keeps its fields."""
    if log_format == "text":
        return f"{part:>6} | {line}"
    from worker.logs import event

    said = event("INFO", part, line, time.time())
    with suppress(ValueError):
        said = json.loads(line) if line.startswith("{") else said
    return json.dumps({"part": part, **said})
