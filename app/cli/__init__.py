"""`zturbo`: one command line for the server, its parts, and requests to it.

Each module of this package registers the commands that it holds; what they need is imported when they run.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from app.cli import doctor, generate, inspect, mcp, parts, requests, serve, top, weights
from app.cli.exits import Exit
from app.terminal import tell

TYPER_USAGE = 2

cli = typer.Typer(
    name="zturbo",
    help="Self-hosted Z-Image-Turbo with ControlNet-Union and LoRA: a drop-in for the hosted endpoint.",
    no_args_is_help=True,
    # Plain text: in the width of a terminal, rich's tables break every help text into six lines.
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        tell(version("zturbo"))
        raise typer.Exit


@cli.callback()
def _common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version: zturbo --version"
        ),
    ] = False,
) -> None:
    pass


for module in (serve, parts, weights, generate, requests, top, inspect, mcp, doctor):
    module.register(cli)


def main() -> None:
    try:
        cli()
    except SystemExit as left:
        # typer's own status for a flag or argument that it does not know.
        raise SystemExit(Exit.USAGE if left.code == TYPER_USAGE else left.code) from None
