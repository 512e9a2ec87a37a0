"""`zturbo submit`, `status`, `result` and `cancel`: requests on a running server, whoever's it is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from app.cli.exits import Exit, fail
from app.cli.options import AsJson, Out, takes_input
from app.cli.progress import RequestProgress, describe

if TYPE_CHECKING:
    from app.client import Client

DEFAULT_MODEL_ID = "tongyi-mai/z-image/turbo/controlnet/lora"

BaseUrl = Annotated[str, typer.Option("--base-url", envvar="ZTURBO_BASE_URL", help="Where the server is.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="ZTURBO_TOKEN", show_envvar=True, help="A key of that server.")
]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds to wait at most.")]
RequestId = Annotated[str, typer.Argument(metavar="REQUEST_ID")]

EXIT_BY_STATUS = {
    None: Exit.UNAVAILABLE,
    401: Exit.NO_PERMISSION,
    403: Exit.NO_PERMISSION,
    404: Exit.DATA,
    413: Exit.DATA,
    422: Exit.DATA,
    429: Exit.TRY_LATER,
    503: Exit.TRY_LATER,
}


def register(cli: typer.Typer) -> None:
    for command in (submit, status, result, cancel):
        cli.command()(command)


@takes_input
def submit(
    *,
    body: dict[str, Any],
    out: Out = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the request's id and do not wait.")] = False,
    as_json: AsJson = False,
    model_id: Annotated[str, typer.Option("--model-id", help="Model to ask.")] = DEFAULT_MODEL_ID,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
    timeout: Timeout = None,
) -> None:
    """Send a request, follow it and save the picture. Ctrl-C asks the server to cancel it."""
    with server(base_url, token) as client:
        submitted = client.submit(model_id, body)
        for warning in submitted.get("warnings") or []:
            typer.secho(warning, err=True, fg="yellow")
        if detach:
            _print(submitted, as_json, submitted["request_id"])
            return
        request_id = submitted["request_id"]
        try:
            _report(client, follow(client, request_id, timeout), as_json, out or Path())
        except KeyboardInterrupt:
            typer.secho(f"Asking the server to cancel {request_id} …", err=True)
            typer.echo(describe(client.cancel(request_id, force=True)), err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None


def status(
    request_id: RequestId,
    as_json: AsJson = False,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
) -> None:
    """Tell how a request fares."""
    with server(base_url, token) as client:
        body = client.status(request_id)
        _print(body, as_json, describe(body))


def result(
    request_id: RequestId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the request is done.")] = False,
    out: Out = None,
    as_json: AsJson = False,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
    timeout: Timeout = None,
) -> None:
    """Tell what became of a request, and save its picture where --out says."""
    with server(base_url, token) as client:
        body = follow(client, request_id, timeout) if wait else client.result(request_id)
        _report(client, body, as_json, out)


def cancel(
    request_id: RequestId,
    force: Annotated[bool, typer.Option("--force", help="Stop it also when it is running.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
) -> None:
    """Cancel a request that waits; with --force also one that runs."""
    with server(base_url, token) as client:
        body = client.cancel(request_id, force)
        _print(body, as_json, f"{body['outcome'].replace('_', ' ')} ({describe(body)})")
        if body["outcome"] != "cancelled":
            raise typer.Exit(Exit.FAILED)


@contextmanager
def server(base_url: str, token: str | None) -> Iterator["Client"]:
    """A client whose errors end the command, with the server's sentence and a fitting exit status."""
    from app.client import Client, ClientError

    try:
        with Client(base_url, token) as client:
            yield client
    except ClientError as error:
        fail(str(error), EXIT_BY_STATUS.get(error.status, Exit.SOFTWARE))


def follow(client: "Client", request_id: str, timeout: float | None) -> dict[str, Any]:
    """The result once there is one, with a live bar on the way."""
    from app.client import WaitTimeout

    try:
        with RequestProgress() as progress:
            return client.wait(request_id, progress.show, timeout)
    except WaitTimeout as error:
        fail(str(error), Exit.TRY_LATER)


def _report(client: "Client", body: dict[str, Any], as_json: bool, out: Path | None) -> None:
    """Print a result body; save its picture at `out`, a file or a folder."""
    saved = None
    if out is not None and body["status"] == "succeeded":
        url = body["output"]["image"]
        suffix = Path(urlsplit(url).path).suffix
        saved = out / f"{body['request_id']}{suffix}" if out.is_dir() else out
        try:
            client.download(url, saved)
        except OSError as error:
            fail(f"{saved} cannot be written: {error.strerror}.", Exit.CANNOT_CREATE)
    words = describe(body)
    if body["status"] == "succeeded":
        words = str(saved or body["output"]["image"])
    elif body["status"] == "failed":
        words = f"failed: {body['error']['message']}"
    _print(body | ({"saved": str(saved)} if saved else {}), as_json, words)
    if body["status"] in ("failed", "cancelled"):
        raise typer.Exit(Exit.FAILED)


def _print(body: dict[str, Any], as_json: bool, words: str) -> None:
    typer.echo(json.dumps(body, indent=2, ensure_ascii=False) if as_json else words)
