"""`zturbo top`: the queue, the workers, their GPUs' memory and the throughput of a server, live."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.output import AsJson, print_answer
from app.cli.requests import BaseUrl, Token, server
from app.terminal import printable
from models.command import zturbo

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from app.client import Client

COLOURS = {"ready": "green", "busy": "cyan", "starting": "yellow", "asleep": "blue", "waking": "yellow"}
"""Any other state of a worker is a fault."""
MEMORY_CELLS = 10
GIB = 2**30

Interval = Annotated[
    float,
    typer.Option("--interval", metavar="SECONDS", min=0.1, help="Look so often: zturbo top --interval 0.5"),
]


def register(cli: typer.Typer) -> None:
    cli.command()(top)


def top(
    interval: Interval = 1.0,
    as_json: AsJson = False,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
) -> None:
    """Show a server's queue and workers, live.

    Where standard output is no terminal, and with --json, once.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with server(base_url, token) as client:
        stats = client.stats()
        if as_json:
            print_answer(stats, as_json, "")
        elif not console.is_terminal:
            console.print(render(stats, base_url))
        else:
            with (
                suppress(KeyboardInterrupt),
                Live(render(stats, base_url), console=console, screen=True, auto_refresh=False) as live,
            ):
                for drawn in _frames(client, base_url, interval):
                    live.update(drawn, refresh=True)


def _frames(client: "Client", base_url: str, interval: float) -> "Iterator[RenderableType]":
    """What is to be seen every so often; a server that is away for a while is waited for."""
    from app.client import ClientError

    while True:
        try:
            time.sleep(interval)
            yield render(client.stats(), base_url)
        except ClientError as error:
            if not error.passing:
                raise
            yield _text(f"{error}\nStill looking; Ctrl-C ends this.")


def render(stats: dict[str, Any], base_url: str) -> "RenderableType":
    """A body of /v1/stats for people."""
    from rich.console import Group
    from rich.table import Table

    waiting = stats["waiting"]
    facts = Table.grid(padding=(0, 2))
    facts.add_row(_text("server", "bold"), _text(f"{base_url}, {time.strftime('%H:%M:%S')}"))
    facts.add_row(
        _text("queue", "bold"),
        _text(
            f"{stats['in_line']} in line, {stats['running']} in hand; "
            f"waiting for an io worker {waiting['io']}, for a gpu worker {waiting['gpu']}"
        ),
    )
    pace = stats.get("generate_seconds")
    facts.add_row(
        _text("pictures", "bold"),
        _text(
            f"{stats['finished_last_minute']} requests finished in the last minute"
            + (f", {pace:.2f} s each on a gpu worker" if pace else "")
        ),
    )
    workers = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("worker", "state", "model", "device", "memory"):
        workers.add_column(title, overflow="fold")
    for worker in stats["workers"]:
        state = worker["state"]
        workers.add_row(
            _text(worker["id"]),
            _text(state.replace("_", " "), COLOURS.get(state, "red")),
            _text(worker.get("model", "")),
            _text(worker.get("device", "")),
            _text(memory(worker.get("memory_used"), worker.get("memory_total"))),
        )
    faults = [
        _text(f"{worker['id']}: {worker['detail']}", COLOURS.get(worker["state"], "red"))
        for worker in stats["workers"]
        if "detail" in worker
    ]
    if not stats["workers"]:
        io, gpu = (f"`{zturbo()} worker {kind}`" for kind in ("io", "gpu"))
        advice = f"No worker is running; {io} and {gpu} start one each."
        faults.append(_text(advice, "red"))
    return Group(facts, "", workers, *faults)


def _text(words: object, style: str = "") -> "Text":
    """Words that rich shows as they are: square brackets in a string would be markup to it."""
    from rich.text import Text

    return Text(printable(words), style)


def memory(used: int | None, total: int | None) -> str:
    """A bar and its figures; nothing for a worker without a GPU."""
    if used is None or not total:
        return ""
    filled = round(MEMORY_CELLS * used / total)
    bar = "█" * filled + "░" * (MEMORY_CELLS - filled)
    return f"{bar} {used / GIB:.1f} of {total / GIB:.1f} GiB"
