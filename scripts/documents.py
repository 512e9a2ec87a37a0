"""Writes the documents that are made from the code: openapi.json, .env.example, the commands of docs/cli.md.

    make documents

tests/ops/test_documents.py compares the committed files with what this would write.
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from typer.main import get_command

from app.cli import cli
from app.config import Settings
from app.main import create_app
from app.openapi import describe

ROOT = Path(__file__).parents[1]
CLI_PAGE = ROOT / "docs" / "cli.md"
CLI_MARK = "<!-- below: made by make documents -->"
COMMANDS: dict[str, Any] = get_command(cli).commands  # type: ignore[attr-defined]
TYPERS_OWN = ("help", "install_completion", "show_completion")

ENV_HEAD = """\
# Copy to .env: `zturbo`, from the folder where it is started, and docker compose read it.
# Every line is a default; `zturbo doctor --all` tells which value holds and where it comes from.

# For docker compose alone: demo, gpu, gpus or workers; where Redis is reached; the folder of LoRA files.
# COMPOSE_PROFILES=gpu
# REDIS_BIND=127.0.0.1
# LORA_FOLDER=./loras

# The Hugging Face hub's own variables mean what they mean everywhere.
# HF_TOKEN=
# HF_TOKEN_PATH=
# HF_HOME=
# HF_ENDPOINT=
# HF_HUB_OFFLINE=

# Those of every tool for S3 too, for ZTURBO_STORAGE; they must be in the environment, not only in this file.
# AWS_ENDPOINT_URL=
# AWS_REGION=
# AWS_ACCESS_KEY_ID=
# AWS_SECRET_ACCESS_KEY=

# A secret may be in a file instead: ZTURBO_REDIS_URL_FILE, ZTURBO_PROMPT_LLM_KEY_FILE,
# AWS_ACCESS_KEY_ID_FILE, AWS_SECRET_ACCESS_KEY_FILE, AWS_SESSION_TOKEN_FILE.
"""


def documents() -> dict[Path, str]:
    """Each file that is made, and its text."""
    return {
        ROOT / "openapi.json": openapi(),
        ROOT / ".env.example": env_example(),
        CLI_PAGE: f"{CLI_PAGE.read_text().partition(CLI_MARK)[0]}{CLI_MARK}\n\n{cli_reference()}\n",
    }


def openapi() -> str:
    """The OpenAPI document. No route is called for it, so Redis need not be there."""
    return json.dumps(describe(create_app(Settings(_env_file=None))), indent=2, ensure_ascii=False) + "\n"


def env_example() -> str:
    """Every setting with what it does and its default, as a comment."""
    blocks = [ENV_HEAD]
    for name, field in Settings.model_fields.items():
        comment = textwrap.wrap(
            field.description or "", 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        default = field.default if field.default_factory is None else None
        shown = "" if default is None or isinstance(default, SecretStr) else str(default)
        blocks.append("\n".join([*comment, f"# ZTURBO_{name.upper()}={shown}"]) + "\n")
    return "\n".join(blocks)


def cli_reference() -> str:
    """A section for each command: its help, and a row for each flag with an example."""
    return "\n\n".join("\n".join(_section(name, command)) for name, command in COMMANDS.items())


def flags(command: Any) -> list[Any]:
    """The options and arguments of a command that are ours to explain."""
    return [
        each for each in command.params if each.name not in TYPERS_OWN and not getattr(each, "hidden", False)
    ]


def explained(flag: Any) -> tuple[str, str]:
    """What a flag does, and the example that its help ends with."""
    text, _, example = flag.help.rpartition(": ")
    return text, example


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## `zturbo {name}`\n"
    yield " ".join(command.help.split()) + "\n"
    rows = [_row(flag) for flag in flags(command)]
    if rows:
        yield from ("| | what it does | for example |", "|---|---|---|", *rows)


def _row(flag: Any) -> str:
    text, example = explained(flag)
    notes = [f"`{flag.envvar}` says it too"] if flag.envvar else []
    cells = (_written(flag), "; ".join([text, *notes]), f"`{example}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _written(flag: Any) -> str:
    if flag.param_type_name == "argument":
        return f"`{flag.metavar}`"
    names = ", ".join(f"`{name}`" for name in (*flag.opts, *flag.secondary_opts))
    return names + (f" `{flag.metavar}`" if flag.metavar else "")


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
