"""`zturbo generate`: pictures made here; no server, no Redis and, given local files, no network."""

import logging
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from app.cli import options
from app.cli.exits import Exit, fail
from app.cli.machine import check_device, check_lora, check_packages
from app.cli.making import Making
from app.cli.options import addressed, flags_named
from app.cli.output import AsJson, Open, Out, bodies_for, print_answer, save, show, unused
from app.cli.progress import RequestProgress
from app.cli.settings import ControlNet, DataDir, Device, LoraDir, Model, read_settings
from app.terminal import tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from app.config import Settings
    from models.inference.engine import Engine
    from models.job import Generated, Job
    from models.schema.inputs import AnyInput

EXIT_BY_CODE = {
    "fetch_failed": Exit.DATA,
    "image_invalid": Exit.DATA,
    "size_invalid": Exit.DATA,
    "lora_invalid": Exit.DATA,
    "controlnet_invalid": Exit.DATA,
    "checkpoint_invalid": Exit.DATA,
    "weights_missing": Exit.CONFIG,
    "hub_error": Exit.UNAVAILABLE,
}


def register(cli: typer.Typer) -> None:
    options.register(cli, generate)


def generate(
    *,
    bodies: list[dict[str, Any]],
    out: Out = None,
    open_it: Open = False,
    as_json: AsJson = False,
    model: Model = None,
    controlnet: ControlNet = None,
    lora_dir: LoraDir = None,
    device: Device = None,
    data_dir: DataDir = None,
) -> None:
    """Make pictures here, without a server.

    One for each seed, guided by an image if there is one.
    """
    with RequestProgress() as progress:
        progress.show({"status": "checking"})
        bodies = bodies_for(out, bodies)
        settings = read_settings(
            model=model, controlnet=controlnet, lora_dir=lora_dir, device=device, data_dir=data_dir
        )
        requests = [_check(body) for body in bodies]
        _check_machine(settings, requests)
    from models.errors import ModelError
    from models.weights.resolve import model_choice
    from worker.errors import WorkerError

    try:
        # Chosen once, so that the stages agree.
        settings = settings.model_copy(update={"model": model_choice(settings)})
        engine, making = None, Making()
        for place, request in enumerate(requests, 1):
            with RequestProgress(f"{place} of {len(requests)}, " if len(requests) > 1 else "") as progress:
                engine, job, made = _make(request, settings, engine, making, progress)
            saved = _save(request, job, made, settings, out or Path())
            for warning in made.facts.warnings:
                tell(warning, err=True, fg="yellow")
            print_answer(_told(saved, made), as_json, "\n".join(map(str, saved)))
            if open_it:
                show(saved)
    except (ModelError, WorkerError) as error:
        fail(flags_named(str(error)), EXIT_BY_CODE.get(error.code, Exit.SOFTWARE))
    except OSError as error:
        fail(f"{error.filename} cannot be written: {error.strerror}.", Exit.CANNOT_CREATE)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


class Request(NamedTuple):
    """One request, checked."""

    model_id: str
    body: dict[str, Any]
    """The checked input of the endpoint, defaults filled in."""
    input: "AnyInput"
    """The same as a worker reads it."""


def _check(body: dict[str, Any]) -> Request:
    from pydantic import ValidationError

    from app.errors import bad_input
    from models.schema.catalog import ENDPOINTS
    from models.schema.inputs import AnyInput, read_input

    model_id, body = addressed(body, None)
    try:
        checked, warnings = read_input(ENDPOINTS[model_id].input_model, body)
    except ValidationError as error:
        fail(flags_named(str(bad_input(error))), Exit.DATA)
    for warning in warnings:
        tell(warning, err=True, fg="yellow")
    whole = checked.model_dump(mode="json")
    return Request(model_id, whole, AnyInput.model_validate(whole))


def _check_machine(settings: "Settings", requests: list[Request]) -> None:
    """Ends the command, before torch is imported, for what this machine lacks, naming the flag."""
    from models.errors import ControlNetError, WeightsMissing
    from models.weights.availability import missing_detectors, pull_command
    from models.weights.published import GB
    from models.weights.resolve import resolve_controlnet, resolve_model

    check_device(settings.device)
    try:
        resolve_model(settings)
    except WeightsMissing as error:
        fail(f"--model: {error}", Exit.CONFIG)
    if not _is_hub_id(settings.controlnet):
        try:
            resolve_controlnet(settings.controlnet, settings)
        except ControlNetError as error:
            fail(f"--controlnet: {error}", Exit.DATA)
    missing = missing_detectors(settings)
    for request in requests:
        for lora in request.input.loras:
            check_lora(lora.path, settings)
        if size := missing.get(request.input.preprocess):
            fail(
                f"--preprocess: {request.input.preprocess} maps need weights that are not on this machine; "
                f"`{pull_command()}` fetches them ({size / GB:.1f} GB).",
                Exit.CONFIG,
            )


def _is_hub_id(name: str) -> bool:
    """A name whose file may have to be downloaded, which is left to the request that needs it."""
    from models.weights.reference import HubReference, ReferenceFault, read_reference

    try:
        return isinstance(read_reference(name), HubReference)
    except ReferenceFault:
        return False


@contextmanager
def _libraries_quiet() -> "Iterator[None]":
    """Without what other libraries log while they are imported: torchao's and torch's of each other."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _make(
    request: Request,
    settings: "Settings",
    engine: "Engine | None",
    making: Making,
    progress: RequestProgress,
) -> "tuple[Engine, Job, Generated]":
    """The pictures of a request by `engine`, which is loaded once the request is known to be good.

    Raises WorkerError and ModelError.
    """
    progress.show({"status": "preparing"})
    from models.imports import importing
    from worker.stages.picture import prepare
    from worker.storage.backend import open_objects
    from worker.storage.pictures import Storage

    job, control, start = prepare(request.input, settings, Storage(open_objects(settings)))
    making.begin(progress, job)
    if engine is None:
        check_packages()
        progress.show({"status": f"loading {settings.model}"})
        with _libraries_quiet(), importing():
            from models.inference.engine import Engine

        engine = Engine.load(settings, making.on_copy, making.on_forecast)
    made = engine.generate(job, control, making.on_step, start, on_stage=making.on_stage)
    return engine, job, made


def _save(request: Request, job: "Job", made: "Generated", settings: "Settings", out: Path) -> list[Path]:
    """Writes the pictures at `out`, in the place of no other where the names are ours."""
    from worker.atomic import write_whole
    from worker.encoding.encode import encode
    from worker.encoding.metadata import describe

    saved = []
    for image, seed in zip(made.images, made.facts.seeds, strict=True):
        said = request.model_id, request.body, job, made.facts, seed
        metadata = describe(*said) if settings.embed_metadata else None
        encoded = encode(image, request.input.output_format, metadata)
        name = unused(out, f"zturbo-{seed}.{encoded.extension}")
        saved.append(save(out, name, partial(write_whole, data=encoded.data)))
    return saved


def _told(saved: "Sequence[Path]", made: "Generated") -> dict[str, Any]:
    """What a result body says of the pictures, without a server's URLs."""
    height, width = made.images[0].shape[:2]
    return {
        "saved": [str(path) for path in saved],
        "width": width,
        "height": height,
        "seed": made.facts.seeds[0],
        **made.facts.model_dump(mode="json", exclude={"prompt"}),
    }
