"""`zturbo generate`: one picture on this machine; no server, no Redis and, given local files, no network."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import Exit, fail
from app.cli.options import AsJson, Out, takes_input
from app.cli.progress import RequestProgress
from app.cli.requests import DEFAULT_MODEL_ID
from app.cli.settings import read_settings

if TYPE_CHECKING:
    from app.config import Settings
    from models.inputs import ControlNetLoraInput
    from models.job import Job, Picture

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
    cli.command()(generate)


@takes_input
def generate(
    *,
    body: dict[str, Any],
    out: Out = None,
    as_json: AsJson = False,
    model: Annotated[
        str | None, typer.Option("--model", help="auto, z-image-turbo, demo, a hub id, or a folder.")
    ] = None,
    controlnet: Annotated[
        str | None, typer.Option("--controlnet", help="ControlNet unless --lora names one.")
    ] = None,
    lora_dir: Annotated[Path | None, typer.Option("--lora-dir", help="Folder of local LoRA files.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the demo model is kept.")] = None,
) -> None:
    """Make one picture here, without a server."""
    from models.errors import ModelError
    from worker.errors import WorkerError

    settings = read_settings(
        model=model, controlnet=controlnet, lora_dir=lora_dir, device=device, data_dir=data_dir
    )
    checked = _check(body)
    try:
        job, picture = _make(checked, settings)
        saved = _save(checked, job, picture, settings, out or Path())
    except (ModelError, WorkerError) as error:
        fail(str(error), EXIT_BY_CODE.get(error.code, Exit.SOFTWARE))
    except OSError as error:
        fail(f"{error.filename} cannot be written: {error.strerror}.", Exit.CANNOT_CREATE)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    for warning in picture.warnings:
        typer.secho(warning, err=True, fg="yellow")
    typer.echo(json.dumps(_told(saved, picture), indent=2, ensure_ascii=False) if as_json else saved)


def _check(body: dict[str, Any]) -> "ControlNetLoraInput":
    from pydantic import ValidationError

    from app.errors import bad_input
    from models.inputs import ControlNetLoraInput, read_input

    try:
        checked, warnings = read_input(ControlNetLoraInput, body)
    except ValidationError as error:
        fail(str(bad_input(error)), Exit.DATA)
    for warning in warnings:
        typer.secho(warning, err=True, fg="yellow")
    assert isinstance(checked, ControlNetLoraInput)  # noqa: S101 (the class that was asked for)
    return checked


def _make(checked: "ControlNetLoraInput", settings: "Settings") -> "tuple[Job, Picture]":
    """Raises WorkerError and ModelError."""
    from models.weights import model_choice
    from worker.stages import prepare
    from worker.storage import FolderStorage

    # Chosen once, so that the stages agree.
    settings = settings.model_copy(update={"model": model_choice(settings)})
    with RequestProgress() as progress:
        progress.show({"status": "preparing"})
        job, control = prepare(checked, settings, FolderStorage(settings.outputs_path))
        progress.show({"status": f"loading {settings.model}"})
        from models.engine import Engine

        engine = Engine.load(settings)
        picture = engine.generate(
            job,
            control,
            lambda done: progress.show(
                {
                    "status": f"{engine.name} on {engine.device}",
                    "progress": done.step / done.total,
                    "step": done.step,
                    "total_steps": done.total,
                }
            ),
        )
    return job, picture


def _save(
    checked: "ControlNetLoraInput", job: "Job", picture: "Picture", settings: "Settings", out: Path
) -> Path:
    """Writes the picture at `out`, a file or a folder. Raises OSError."""
    from worker.encode import encode
    from worker.metadata import describe
    from worker.storage import write_whole

    body = checked.model_dump(mode="json")
    metadata = describe(DEFAULT_MODEL_ID, body, job, picture) if settings.embed_metadata else None
    encoded = encode(picture.image, checked.output_format, metadata)
    saved = out / f"zturbo-{picture.seed}.{encoded.extension}" if out.is_dir() else out
    write_whole(saved, encoded.data)
    return saved


def _told(saved: Path, picture: "Picture") -> dict[str, Any]:
    """What a result body says of the picture, without a server's URLs."""
    height, width = picture.image.shape[:2]
    return {
        "saved": str(saved),
        "width": width,
        "height": height,
        "model": picture.model,
        "seed": picture.seed,
        "expanded_prompt": picture.expanded_prompt,
        "controlnet": picture.controlnet,
        "loras": [lora.model_dump() for lora in picture.loras],
        "timings": picture.timings,
        "warnings": list(picture.warnings),
    }
