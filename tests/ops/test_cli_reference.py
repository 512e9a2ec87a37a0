"""docs/cli.md against the commands: every flag is there with its help and an example.

The part below the marker is written by: make cli-reference
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from app.cli import cli
from app.cli.exits import Exit

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BEGIN = "<!-- below: made by make cli-reference -->"
TYPERS_OWN = ("help", "install_completion", "show_completion")

COMMANDS: dict[str, Any] = get_command(cli).commands  # type: ignore[attr-defined]


def flags(command: Any) -> list[Any]:
    """The options and arguments that are ours to explain."""
    return [each for each in command.params if each.name not in TYPERS_OWN and not _hidden(each)]


def _hidden(parameter: Any) -> bool:
    return getattr(parameter, "hidden", False)


def explained(parameter: Any) -> tuple[str, str]:
    """What it does, and the example that its help ends with."""
    text, _, example = parameter.help.rpartition(": ")
    return text, example


def reference() -> str:
    return "\n\n".join("\n".join(_section(name, command)) for name, command in COMMANDS.items())


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## `zturbo {name}`\n"
    yield " ".join(command.help.split()) + "\n"
    rows = [_row(parameter) for parameter in flags(command)]
    if rows:
        yield from ("| | what it does | for example |", "|---|---|---|", *rows)


def _row(parameter: Any) -> str:
    text, example = explained(parameter)
    notes = [f"`{parameter.envvar}` says it too"] if parameter.envvar else []
    cells = (_written(parameter), "; ".join([text, *notes]), f"`{example}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _written(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return names + (f" `{parameter.metavar}`" if parameter.metavar else "")


def test_reference_is_up_to_date() -> None:
    assert PAGE.read_text().partition(BEGIN)[2].strip() == reference(), "run: make cli-reference"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_s_help_ends_with_the_flag_in_use(command: str) -> None:
    for parameter in flags(COMMANDS[command]):
        _, example = explained(parameter)
        is_argument = parameter.param_type_name == "argument"
        assert any(name in example for name in parameter.opts) or (is_argument and example), parameter.help


def test_every_exit_status_is_explained() -> None:
    told = PAGE.read_text().partition("## Exit status")[2].partition("\n## ")[0]
    assert [status for status in Exit if f"| {status.value} |" not in told] == []


if __name__ == "__main__":
    PAGE.write_text(f"{PAGE.read_text().partition(BEGIN)[0]}{BEGIN}\n\n{reference()}\n")
