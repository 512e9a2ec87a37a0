"""`zturbo pull`: brings the weights to this machine, and checks those that are here."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import Exit, fail
from app.cli.machine import check_published, missing_packages
from app.cli.settings import Model, read_settings
from app.terminal import printable, tell
from models.command import zturbo

if TYPE_CHECKING:
    from models.config import ModelSettings
    from models.weights.pull import Plan

ALL = "all"
WARNED_BYTES = 10**9
"""Before more of the published model is brought, a few seconds are taken to see whether it would run."""
MARKS = {"ok": "green", "missing": "yellow", "damaged": "red"}


def register(cli: typer.Typer) -> None:
    cli.command()(pull)


def pull(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="all (the default), model, controlnet, detectors, OWNER/REPO or OWNER/REPO/FILE: "
            "zturbo pull detectors",
        ),
    ] = None,
    model: Model = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only compare what is here with the hub, all bytes: zturbo pull --check"
        ),
    ] = False,
) -> None:
    """Bring the weights to this machine.

    All are some 37 GB: the model 33, ControlNet-Union 1.0 3, the detectors 1. They go to the hub's cache,
    $HF_HOME/hub, else ~/.cache/huggingface/hub. HF_TOKEN is the hub's key, HF_ENDPOINT names a mirror. An
    interrupted pull goes on where it stopped.
    """
    from models.errors import ModelError
    from models.weights.pull import EVERYTHING, plan

    words = [each for word in what or [ALL] for each in (EVERYTHING if word == ALL else (word,))]
    settings = read_settings(model=model)
    try:
        planned = plan(settings, words)
        if check:
            _check(planned)
        else:
            _warn_of_machine(settings, planned)
            bring(planned)
    except ModelError as error:
        fail(str(error), Exit.UNAVAILABLE)
    except KeyboardInterrupt:
        tell(f"Stopped; the next `{zturbo()} pull` goes on from here.", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None


def _warn_of_machine(settings: "ModelSettings", planned: "Plan") -> None:
    """Says beforehand that the published model would not run here; it may be brought for another machine."""
    from models.errors import ModelError
    from models.weights.published import MODEL

    size = sum(file.size for file in planned.missing if file.repo_id == MODEL.repo_id)
    if size < WARNED_BYTES or missing_packages():
        return
    try:
        check_published(settings)
    except ModelError as error:
        tell(f"The real model would not run on this machine. {error}", err=True, fg="yellow")


def bring_missing(settings: "ModelSettings") -> None:
    """Everything that a first start on a GPU needs. Raises ModelError."""
    from models.weights.pull import plan

    bring(plan(settings))


def bring(planned: "Plan") -> None:
    """Download what is missing of a plan, with one bar for each file. Raises ModelError."""
    from huggingface_hub import constants
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    from models.weights.hub import Progress as Arrived
    from models.weights.pull import pull as pull_files

    if not planned.missing:
        tell(f"All {len(planned.files)} files are here, in {constants.HF_HUB_CACHE}.")
        return
    size = planned.missing_bytes
    tell(f"{len(planned.missing)} files to bring, {size / 1e9:.1f} GB, to {constants.HF_HUB_CACHE}.")
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[tuple[str, str], TaskID] = {}
    with bars:
        total = bars.add_task("all", total=size)

        def show(arrived: Arrived) -> None:
            key = (arrived.repo_id, arrived.filename)
            if key not in tasks:
                tasks[key] = bars.add_task(printable(arrived.filename), total=arrived.total)
            bars.update(tasks[key], completed=arrived.done, visible=arrived.done < arrived.total)
            bars.update(total, completed=sum(task.completed for task in bars.tasks if task.id != total))

        pull_files(planned, show)
    tell(f"All {len(planned.files)} files are here.")


def _check(planned: "Plan") -> None:
    from models.weights.pull import check, discard

    faulty = 0
    for verdict in check(planned):
        faulty += verdict.state != "ok"
        tell(f"{verdict.state:8} {verdict.repo_id}/{verdict.filename}", fg=MARKS[verdict.state])
        if verdict.state == "damaged":
            discard(verdict)
    if faulty:
        fail(
            f"{faulty} of {len(planned.files)} files are missing or were damaged (those are removed now); "
            f"`{zturbo()} pull` brings them.",
            Exit.FAILED,
        )
