"""`zturbo mcp`: a server's pictures as tools for a language model (Model Context Protocol, stdio)."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import Exit, fail
from app.cli.requests import BaseUrl, Token
from models.command import install

Folder = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Save each picture in a folder too, else not: --out ~/Pictures"
    ),
]


def register(cli: typer.Typer) -> None:
    cli.command()(mcp)


def mcp(out: Folder = None, base_url: BaseUrl = "http://127.0.0.1:8000", token: Token = None) -> None:
    """Serve a language model's host over stdio.

    Its tools make pictures on a running server: generate, status, cancel, list_requests, list_loras.
    """
    try:
        from app.mcp_server import create_mcp_server
    except ModuleNotFoundError as missing:
        fail(
            f"There is no package {missing.name} here: `{install('mcp')}` brings it.",
            Exit.CONFIG,
        )
    from app.client import ClientError

    try:
        server = create_mcp_server(base_url, token, out.expanduser() if out else None)
    except ClientError as error:
        fail(str(error), Exit.USAGE)
    server.run("stdio")
