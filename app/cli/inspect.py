"""`zturbo inspect FILE`: how a picture was made, read from the picture itself."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import Exit, fail
from app.terminal import tell

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A PNG, JPEG or WebP file: zturbo inspect picture.png")
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print everything the file says, as JSON: zturbo inspect picture.png --json"),
]
Request = Annotated[
    bool,
    typer.Option(
        "--request",
        help="Print the body that makes the picture again: "
        "zturbo inspect picture.png --request | zturbo submit --input -",
    ),
]


def register(cli: typer.Typer) -> None:
    cli.command("inspect")(inspect)


def inspect(file: File, as_json: AsJson = False, request: Request = False) -> None:
    """Print how a picture was made.

    That is its prompt, seed, settings, and the request behind it.
    """
    from worker.encoding.metadata import read_metadata, request_body
    from worker.errors import ImageError

    try:
        metadata = read_metadata(file.read_bytes())
        if not metadata:
            fail(f"{file} says nothing about how it was made.", Exit.FAILED)
        if request:
            _print_request(request_body(metadata))
        elif as_json:
            _print_json(metadata)
        else:
            # The text that other tools read is made for people too; a file may have only the other one.
            tell(metadata.get("parameters") or json.dumps(metadata["zturbo"], ensure_ascii=False))
    except OSError as fault:
        fail(f"{file} cannot be read: {fault.strerror}.", Exit.NO_INPUT)
    except ImageError as fault:
        fail(f"{file}: {fault}", Exit.DATA)


def _print_request(body: dict[str, Any]) -> None:
    from worker.encoding.metadata import IMAGE_NOT_KEPT, URL_NOT_KEPT

    _print_json(body)
    for field, what in (("image_url", "input image"), ("mask_image_url", "mask")):
        if str(body.get(field)).startswith(IMAGE_NOT_KEPT):
            tell(
                f"The {what} is not kept in the picture. Put yours in {field}; its file has the "
                f"sha256 {body[field].removeprefix(IMAGE_NOT_KEPT)}.",
                err=True,
            )
    for number, lora in enumerate(body.get("loras") or []):
        if URL_NOT_KEPT in str(lora["path"]):
            tell(
                f"The URL of {lora['path']} is not kept in the picture. Put it in loras[{number}].path; "
                "--json has the sha256 of each LoRA's file.",
                err=True,
            )


def _print_json(value: dict[str, Any]) -> None:
    tell(json.dumps(value, ensure_ascii=False, indent=2))
