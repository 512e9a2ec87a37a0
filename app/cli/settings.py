"""The settings of a command: its flags, else ZTURBO_ variables, else .env, else the defaults."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import Exit, fail

if TYPE_CHECKING:
    from app.config import Settings


Host = Annotated[
    str | None,
    typer.Option("--host", metavar="ADDRESS", help="Address to listen on, else 127.0.0.1: --host 0.0.0.0"),
]
Port = Annotated[
    int | None,
    typer.Option("--port", metavar="N", help="Port to listen on, else 8000; 0 takes a free one: --port 9000"),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert", metavar="PEM", help="Certificate, for HTTPS alone, else HTTP: --tls-cert server.crt"
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        "--tls-key", metavar="PEM", help="The certificate's key, else in its file: --tls-key server.key"
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where all that is written is kept, else ~/.local/share/zturbo: --data-dir /srv/zturbo",
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        help="A Redis that is there, else one of serve's own, or redis://127.0.0.1:6379/0: "
        "--redis-url redis://box:6379/0",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="z-image-turbo, demo, a hub id, or a folder, else auto, which is z-image-turbo where its "
        "weights or a GPU are: --model demo",
    ),
]
ControlNet = Annotated[
    str | None,
    typer.Option(
        "--controlnet",
        metavar="PATH",
        help="ControlNet of requests that name none, else alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union: "
        "--controlnet union-2.1.safetensors",
    ),
]
LoraDir = Annotated[
    Path | None,
    typer.Option(
        "--lora-dir",
        metavar="DIR",
        help="Folder of LoRA files, else loras in the data folder: --lora-dir ~/loras",
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 or mps, else auto: --device cuda:1"),
]


SECRETS = (
    "ZTURBO_REDIS_URL",
    "ZTURBO_PROMPT_LLM_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Each may be in a file that the variable NAME_FILE names, as Docker hands over secrets.

Not ZTURBO_API_KEYS, whose _FILE is a setting of its own, nor HF_TOKEN: the hub has HF_TOKEN_PATH.
"""


def read_settings(**flags: Any) -> "Settings":
    """Flags that are None were not given. A value that no setting takes ends the command with a sentence."""
    from pydantic import ValidationError

    from app.config import Settings

    _read_secret_files()
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(
            f"{_asked('_'.join(map(str, fault['loc'])), flags)}: {fault['msg']}" for fault in error.errors()
        )
        fail(f"These settings cannot be used: {faults}.", Exit.CONFIG)


def _asked(name: str, flags: dict[str, Any]) -> str:
    """What a person wrote to set it: the flag, else the variable."""
    given = flags.get(name) is not None
    return f"--{name.replace('_', '-')}" if given else f"ZTURBO_{name.upper()}"


def _read_secret_files() -> None:
    """Puts what the files hold into the environment; an empty file is as none, and what is there stays."""
    for name in SECRETS:
        file = os.environ.get(f"{name}_FILE")
        if file and not os.environ.get(name):
            try:
                secret = Path(file).read_text().strip()
            except OSError as error:
                fail(f"{name}_FILE names {file}, which cannot be read: {error.strerror}.", Exit.CONFIG)
            if secret:
                os.environ[name] = secret
