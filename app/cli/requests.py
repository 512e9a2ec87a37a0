"""`zturbo submit`, `status`, `result` and `cancel`: requests on a running server, whoever's it is."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.exits import Exit, fail
from app.cli.options import addressed, flags_named
from app.cli.output import (
    AsJson,
    Open,
    Out,
    bodies_for,
    check_format,
    check_out,
    print_answer,
    save,
    show,
)
from app.cli.progress import RequestProgress
from app.status_words import describe
from app.terminal import tell
from models.command import zturbo

if TYPE_CHECKING:
    from app.client import Client


def _short_names() -> list[str]:
    from models.schema.catalog import short_names

    return list(short_names())


BaseUrl = Annotated[
    str,
    typer.Option(
        "--base-url",
        metavar="URL",
        envvar="ZTURBO_BASE_URL",
        help="Where the server is: --base-url http://gpu-box:8000",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="KEY",
        envvar="ZTURBO_TOKEN",
        help='A key of that server, else none: --token "$(cat key.txt)"',
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Wait for each at most so long, else until it is done: --timeout 60",
    ),
]
ModelId = Annotated[
    str | None,
    typer.Option(
        "--model-id",
        metavar="ID",
        autocompletion=_short_names,
        help="Which of its models to ask, by id or by the end of one; else it goes by what is given, a "
        "mask, a strength or an image: --model-id turbo",
    ),
]
RequestId = Annotated[str, typer.Argument(metavar="REQUEST_ID", help="Its id, as submit told it: 0f3c…")]

EXIT_BY_STATUS = {
    None: Exit.UNAVAILABLE,
    401: Exit.NO_PERMISSION,
    403: Exit.NO_PERMISSION,
    404: Exit.DATA,
    413: Exit.DATA,
    422: Exit.DATA,
    429: Exit.TRY_LATER,
    503: Exit.TRY_LATER,
    507: Exit.TRY_LATER,
}


def register(cli: typer.Typer) -> None:
    options.register(cli, submit)
    for command in (status, result, cancel):
        cli.command()(command)


def submit(
    *,
    bodies: list[dict[str, Any]],
    out: Out = None,
    open_it: Open = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the ids and do not wait: zturbo submit … --detach")
    ] = False,
    as_json: AsJson = False,
    model_id: ModelId = None,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
    timeout: Timeout = None,
) -> None:
    """Have a server make pictures.

    One for each seed, guided by an image if there is one. Follows the requests and saves the pictures.
    Ctrl-C asks the server to cancel.
    """
    bodies = bodies_for(out, bodies)
    unfinished: list[str] = []
    warned: dict[str, list[str]] = {}
    with server(base_url, token, flags_named) as client:
        try:
            for body in bodies:
                with _answered_first():
                    submitted = client.submit(*addressed(body, model_id))
                    unfinished.append(submitted["request_id"])
                warned[submitted["request_id"]] = _warn(submitted)
                if detach:
                    print_answer(submitted, as_json, submitted["request_id"])
            if detach:
                return
            succeeded = []
            for place, request_id in enumerate(tuple(unfinished), 1):
                label = f"{place} of {len(bodies)}, " if len(bodies) > 1 else ""
                answer = follow(client, request_id, timeout, label)
                unfinished.remove(request_id)
                succeeded.append(_report(client, answer, as_json, out or Path(), open_it, warned[request_id]))
        except KeyboardInterrupt:
            for request_id in unfinished:
                tell(f"Asking the server to cancel {request_id} …", err=True)
                tell(describe(client.cancel(request_id, force=True)), err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
    if not all(succeeded):
        raise typer.Exit(Exit.FAILED)


def status(
    request_id: RequestId,
    as_json: AsJson = False,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
) -> None:
    """Tell how a request fares."""
    with server(base_url, token) as client:
        body = client.status(request_id)
        print_answer(body, as_json, describe(body))


def result(
    request_id: RequestId,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the request is done: zturbo result 0f3c… --wait")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR|FILE",
            help="Where its pictures are saved, as by submit, else they are not: --out pictures",
        ),
    ] = None,
    open_it: Open = False,
    as_json: AsJson = False,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
    timeout: Timeout = None,
) -> None:
    """Tell what became of a request.

    Its picture is saved where --out says.
    """
    if open_it and out is None:
        out = Path()
    with server(base_url, token) as client:
        body = follow(client, request_id, timeout) if wait else client.result(request_id)
        _report(client, body, as_json, out, open_it)
    if body["status"] in ("failed", "cancelled"):
        raise typer.Exit(Exit.FAILED)


def cancel(
    request_id: RequestId,
    force: Annotated[
        bool, typer.Option("--force", help="Stop it also when it is running: zturbo cancel 0f3c… --force")
    ] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = "http://127.0.0.1:8000",
    token: Token = None,
) -> None:
    """Cancel a request that waits.

    With --force also one that runs.
    """
    with server(base_url, token) as client:
        body = client.cancel(request_id, force)
        print_answer(body, as_json, f"{body['outcome'].replace('_', ' ')} ({describe(body)})")
        if body["outcome"] != "cancelled":
            raise typer.Exit(Exit.FAILED)


@contextmanager
def _answered_first() -> Iterator[None]:
    """Within, Ctrl-C waits for the end: only the answer tells what there is to cancel. A second one does not.

    Raises KeyboardInterrupt.
    """
    interrupted = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal interrupted
        if interrupted:
            tell("The server has not answered, so it may make this picture.", err=True)
            raise KeyboardInterrupt
        interrupted = True
        tell(
            "Waiting for the server's answer, to cancel what it took; Ctrl-C again does not wait …", err=True
        )

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt


@contextmanager
def server(base_url: str, token: str | None, word: Callable[[str], str] = str) -> Iterator["Client"]:
    """A client whose errors end the command, with the server's sentence and a fitting exit status.

    `word` puts the sentence as the command's user would.
    """
    import httpx

    from app.client import Client, ClientError

    try:
        client = Client(base_url, token)
    except ClientError as error:
        fail(f"--base-url: {error}", Exit.USAGE)
    try:
        with client:
            yield client
    except ClientError as error:
        sentence = word(str(error))
        if isinstance(error.__cause__, httpx.ConnectError):
            sentence += f". `{zturbo()} serve` starts a server here; --base-url names another."
        if error.status == HTTPStatus.UNAUTHORIZED and not token:
            sentence += " Give the key by --token or ZTURBO_TOKEN."
        fail(sentence, EXIT_BY_STATUS.get(error.status, Exit.SOFTWARE))


def follow(client: "Client", request_id: str, timeout: float | None, label: str = "") -> dict[str, Any]:
    """The result once there is one, with a live bar on the way; `label` goes before its words."""
    from app.client import WaitTimeout

    try:
        with RequestProgress(label) as progress:
            return client.wait(request_id, progress.show, timeout)
    except WaitTimeout as error:
        fail(str(error), Exit.TRY_LATER)


def _warn(body: dict[str, Any], told: Sequence[str] = ()) -> list[str]:
    """Tell what was ignored or changed, but what is `told` already; all of it."""
    warnings: list[str] = body.get("warnings") or []
    for warning in warnings:
        if warning not in told:
            tell(warning, err=True, fg="yellow")
    return warnings


def _report(
    client: "Client",
    body: dict[str, Any],
    as_json: bool,
    out: Path | None,
    open_it: bool,
    told: Sequence[str] = (),
) -> bool:
    """Print a result body, save its pictures at `out` and show them; whether it succeeded.

    Its warnings but those that are `told` go to standard error.
    """
    from app.client import picture_names, picture_urls

    words, saved = describe(body), []
    _warn(body, told)
    if body["status"] == "succeeded":
        urls = picture_urls(body)
        if out is not None:
            check_out(out, len(urls))
            names = picture_names(body["request_id"], urls)
            check_format(out, names[0])
            saved = [
                save(out, name, partial(client.download, url)) for name, url in zip(names, urls, strict=True)
            ]
        words = "\n".join(map(str, saved or urls))
    elif body["status"] == "failed":
        words = f"failed: {body['error']['message']}"
    print_answer(body | ({"saved": [str(path) for path in saved]} if saved else {}), as_json, words)
    if open_it:
        show(saved)
    return bool(body["status"] == "succeeded")
