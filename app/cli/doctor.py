"""`zturbo doctor`: what this machine has, what is missing and the command that mends it; every setting."""

import math
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from app.cli.exits import Exit, fail
from app.cli.machine import missing_packages
from app.cli.settings import Model, read_settings
from app.terminal import tell
from models.command import install, zturbo
from models.disk import spare_bytes

if TYPE_CHECKING:
    import redis

    from app.config import Settings

DATA_BYTES = 10**9
"""Room for requests and pictures."""
SECRETS = ("api_keys", "redis_url", "prompt_llm_key")
MARKS: dict[str, tuple[str, str]] = {"ok": ("✓", "green"), "note": ("·", "yellow"), "missing": ("✗", "red")}


class Finding(NamedTuple):
    state: Literal["ok", "note", "missing"]
    what: str
    mend: str = ""
    """The command or setting that changes it."""


def register(cli: typer.Typer) -> None:
    cli.command()(doctor)


def doctor(
    model: Model = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="List the settings at their default too: zturbo doctor --all")
    ] = False,
) -> None:
    """Tell what this machine has and lacks.

    What is missing comes first, each with the command that mends it; then the settings that are not at their
    default, and where each is from.
    """
    settings = read_settings(model=model)
    missing = 0
    found = {title: list(look(settings)) for title, look in CHECKS.items()}
    # Sorting is stable: those of one urgency stay in the order of CHECKS.
    for title, findings in sorted(found.items(), key=lambda each: -max(map(_urgency, each[1]), default=0)):
        tell(title, bold=True)
        for state, what, mend in sorted(findings, key=_urgency, reverse=True):
            mark, colour = MARKS[state]
            tell(f"  {mark} {what}", fg=colour if state != "ok" else None)
            if mend:
                tell(f"      → {mend}")
            missing += state == "missing"
    rows = [row for row in setting_rows(settings) if show_all or row[2] != "default"]
    tell(
        "Settings" if show_all else "Settings that differ from their default (--all for the rest)",
        bold=True,
    )
    if not rows:
        tell("  none")
    for name, value, source in rows:
        tell(f"  ZTURBO_{name.upper():<23} {value:<40} {source}")
    if missing:
        fail(f"{missing} of these must be mended before `{zturbo()} serve` can make pictures.", Exit.CONFIG)
    tell(f"Everything that `{zturbo()} serve` needs is here.", fg="green")


def _urgency(finding: Finding) -> int:
    return list(MARKS).index(finding.state)


def setting_rows(settings: "Settings") -> Iterator[tuple[str, str, str]]:
    """Name, value (a secret is masked) and origin of each setting."""
    in_file = _env_file()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        shown = "" if value in (None, "") else "********" if name in SECRETS else str(value)
        variable = f"ZTURBO_{name.upper()}"
        if os.environ.get(variable):
            source = "environment"
        elif in_file.get(variable):
            source = ".env"
        else:
            source = "default" if name not in settings.model_fields_set else "command line"
        yield name, shown, source


def _env_file() -> dict[str, str]:
    from dotenv import dotenv_values

    return {name.upper(): value for name, value in dotenv_values(".env").items() if value}


def _machine(settings: "Settings") -> Iterator[Finding]:
    from models.gpus import DRIVER, describe_gpus, old_drivers

    python = f"Python {platform.python_version()} ({sys.executable})"
    yield Finding("ok", f"This is zturbo {version('zturbo')} on {python}.")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(
        "ok",
        f"The machine has {os.cpu_count()} cores and {memory:.0f} GiB of memory, under "
        f"{platform.system()} on {platform.machine()}.",
    )
    gpus = describe_gpus()
    yield from (Finding("ok", f"It has a GPU: {gpu}.") for gpu in gpus)
    for driver in old_drivers():
        yield Finding(
            "missing",
            f"NVIDIA's driver here is {driver}; CUDA 13, which torch brings, needs {DRIVER} or newer.",
            "https://www.nvidia.com/drivers",
        )
    if not gpus:
        yield Finding(
            "note",
            "It has no GPU: the real model takes a few gigabytes of memory, and many minutes for a picture.",
        )
    if missing := missing_packages():
        yield Finding("missing", f"It lacks {', '.join(missing)}, so it makes no pictures.", install("gpu"))
    else:
        yield Finding(
            "ok", f"Pictures are made by torch {version('torch')} and diffusers {version('diffusers')}."
        )
        if gpus and settings.device != "cpu":
            yield from _kernels(settings)


def _kernels(settings: "Settings") -> Iterator[Finding]:
    """Finds a GPU that PyTorch cannot use, with the reason; nothing where it can."""
    from models.errors import ModelError
    from models.inference.device.devices import find_device

    try:
        find_device(settings.device)
    except ModelError as error:
        yield Finding("missing", str(error))


def _redis(settings: "Settings") -> Iterator[Finding]:
    from worker.errors import SetupError
    from worker.host.embedded_redis import find_server

    if settings.redis_url:
        import redis

        try:
            with redis.Redis.from_url(settings.redis_url, socket_timeout=5, decode_responses=True) as client:
                info = client.info()
                fsync = _appendfsync(client)
        except (redis.RedisError, ValueError) as error:
            yield Finding(
                "missing",
                f"The Redis of ZTURBO_REDIS_URL does not answer: {error}.",
                "unset it to run one of our own",
            )
            return
        yield Finding("ok", f"The Redis of ZTURBO_REDIS_URL answers; it is version {info['redis_version']}.")
        if not info.get("aof_enabled"):
            yield Finding(
                "note", "It keeps no append-only file, so a restart of it loses requests.", "appendonly yes"
            )
        elif fsync != "always":
            yield Finding(
                "note",
                f"It flushes its append-only file {fsync}: a power cut loses the latest requests.",
                "appendfsync always",
            )
        return
    try:
        yield Finding("ok", f"`serve` runs a Redis of its own: {find_server()}.")
    except SetupError as error:
        yield Finding("missing", str(error))


def _appendfsync(client: "redis.Redis") -> str:
    """When the server flushes its append-only file; `always` also where it does not tell."""
    from redis.exceptions import ResponseError

    try:
        told: dict[str, str] = client.config_get("appendfsync")  # type: ignore[assignment]
    except ResponseError:
        return "always"
    return told.get("appendfsync", "always")


def _weights(settings: "Settings") -> Iterator[Finding]:
    from huggingface_hub import constants

    from models.errors import WeightsMissing
    from models.inference.fast_path.verdict import newest
    from models.weights.availability import missing_bytes
    from models.weights.resolve import DEMO, REAL, model_choice, resolve_model

    chosen = model_choice(settings)
    to_pull = False
    if chosen == DEMO:
        yield Finding(
            "note",
            "The model is the small demo model, which knows a few simple things only.",
            f"{zturbo()} pull",
        )
        if settings.model == "auto":
            yield from _forecast(settings, is_here=False)
    else:
        try:
            yield Finding("ok", f"The model is {chosen}, in {resolve_model(settings)}.")
        except WeightsMissing as error:
            # A file or folder of one's own does not come by it.
            to_pull = f"{zturbo()} pull" in str(error)
            foretold = list(_forecast(settings, is_here=False)) if to_pull and chosen == REAL else []
            if all(finding.state == "ok" for finding in foretold):
                yield Finding("missing", str(error), f"{zturbo()} pull" if to_pull else "")
            yield from foretold
        else:
            yield from _forecast(settings, is_here=True)
    if settings.fast_path == "auto" and (found := newest(settings.data_dir / "cache")):
        yield Finding("ok", f"As a worker found here, it runs {found.path}: {found.reason}")
    needed = 0 if chosen == DEMO else missing_bytes(settings, model=to_pull)
    yield _room("hub cache", constants.HF_HUB_CACHE, needed)


def _forecast(settings: "Settings", is_here: bool) -> Iterator[Finding]:
    """What this machine would do with the chosen model, or the published one."""
    if missing_packages():
        return
    from models.errors import ModelError
    from models.inference.forecast import PUBLISHED, chosen_footprint, forecast, is_large

    try:
        weight = chosen_footprint(settings) if is_here else PUBLISHED
        if is_large(weight):
            told = f"{'It' if is_here else 'The real model'} would run here {forecast(settings, weight)}."
            yield Finding("ok", told)
    except ModelError as error:
        if settings.model == "auto" and not is_here:
            yield Finding("note", f"The real model would not run here, so `serve` takes the demo. {error}")
        else:
            yield Finding("missing", str(error))


def _folders(settings: "Settings") -> Iterator[Finding]:
    yield _room("data folder", str(settings.data_dir), DATA_BYTES + _copy_bytes(settings))
    loras = len(list(settings.loras_path.rglob("*.safetensors"))) if settings.loras_path.is_dir() else 0
    yield Finding("ok", f"The LoRA folder {settings.loras_path} has {loras} files.")


def _copy_bytes(settings: "Settings") -> int:
    """What copies of the weights in fewer bits would still take."""
    from models.errors import ModelError, WeightsMissing
    from models.weights.resolve import DEMO, model_choice

    if model_choice(settings) == DEMO or missing_packages():
        return 0
    from models.inference.forecast import PUBLISHED, chosen_footprint, missing_copies

    with suppress(ModelError):
        try:
            return missing_copies(settings, chosen_footprint(settings))
        except WeightsMissing:
            return missing_copies(settings, PUBLISHED)
    return 0


def _pictures(settings: "Settings") -> Iterator[Finding]:
    from worker.errors import WorkerError
    from worker.storage.backend import open_objects

    if not settings.storage:
        yield Finding("ok", "Pictures are kept in the data folder.")
        return
    key = "outputs/doctor"
    try:
        objects = open_objects(settings)
        objects.put(key, b"")
        objects.get(key)
        objects.delete([key])
    except WorkerError as error:
        yield Finding("missing", str(error), "see docs/deploy.md for the AWS_ variables")
        return
    yield Finding("ok", f"Pictures go to {settings.storage}, which takes, gives and deletes them.")


def _keys(settings: "Settings") -> Iterator[Finding]:
    from app.auth import check_exposure
    from app.errors import ConfigError

    try:
        keys = check_exposure(settings)
    except ConfigError as error:
        yield Finding("missing", str(error))
        return
    if keys.open:
        yield Finding(
            "note",
            "There is no key, so any token is taken, but from this machine only.",
            "echo ZTURBO_API_KEYS=me:$(openssl rand -hex 24) >> .env",
        )
    else:
        yield Finding("ok", f"There {'is 1 key' if len(keys) == 1 else f'are {len(keys)} keys'}.")


def _room(name: str, folder: str, needed: int) -> Finding:
    """Tells how much disk is free for `folder`, which may not exist yet, and whether `needed` bytes fit."""
    there = Path(folder).expanduser().resolve()
    while not there.exists():
        there = there.parent
    free, spare = shutil.disk_usage(there).free, spare_bytes(there)
    if not os.access(there, os.W_OK):
        return Finding("missing", f"The {name} {folder} cannot be written.", f"chown -R $USER {there}")
    if spare < 0:
        sentence = (
            f"The {name} {folder} has {free / 1e9:.1f} GB of free disk, too little to take or fetch anything."
        )
        return Finding("missing", sentence, f"df -h {there}")
    state: Literal["ok", "note"] = "ok" if spare >= needed else "note"
    # With what is kept free of the whole disk.
    wanted = "" if state == "ok" else f", where {math.ceil((needed + free - spare) / 1e9)} GB are wanted"
    return Finding(state, f"The {name} {folder} has {free / 1e9:.0f} GB of free disk{wanted}.")


CHECKS: dict[str, Callable[["Settings"], Iterator[Finding]]] = {
    "This machine": _machine,
    "Redis": _redis,
    "Weights": _weights,
    "Folders": _folders,
    "Pictures": _pictures,
    "Keys": _keys,
}
