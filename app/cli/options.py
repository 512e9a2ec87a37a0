"""Command-line options that several commands share: the input's fields under their own names, the output."""

import base64
import json
import mimetypes
import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import Exit, fail

STDIN = "-"

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to save the picture.")]

INPUT_OPTIONS: dict[str, Any] = {
    "prompt": Annotated[str | None, typer.Option("--prompt", help="What the picture shows.")],
    "image": Annotated[
        str | None,
        typer.Option("--image", metavar="FILE|URL|-", help="The image that guides; - reads it."),
    ],
    "lora": Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="PATH[:SCALE]",
            help="A LoRA or ControlNet: URL, hub id or name. Up to three times.",
        ),
    ],
    "image_size": Annotated[
        str | None,
        typer.Option(
            "--image-size",
            metavar="SIZE",
            help="auto (the image's own shape), square_hd, square, portrait_4_3, portrait_16_9, "
            "landscape_4_3 or landscape_16_9.",
        ),
    ],
    "control_scale": Annotated[
        float | None, typer.Option("--control-scale", help="How strongly the image guides, 0 to 1.")
    ],
    "control_start": Annotated[
        float | None, typer.Option("--control-start", help="Fraction of the steps before control begins.")
    ],
    "control_end": Annotated[
        float | None, typer.Option("--control-end", help="Fraction of the steps after which control ends.")
    ],
    "preprocess": Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="HOW",
            help="How the control map is made from the image: none, canny, depth or pose.",
        ),
    ],
    "num_inference_steps": Annotated[
        int | None, typer.Option("--num-inference-steps", help="Denoising steps, 1 to 8.")
    ],
    "seed": Annotated[
        int | None, typer.Option("--seed", help="The same seed gives the same picture; -1 draws one.")
    ],
    "enable_prompt_expansion": Annotated[
        bool | None,
        typer.Option(
            "--enable-prompt-expansion/--no-prompt-expansion",
            help="Let the model write a more detailed prompt first.",
        ),
    ],
    "output_format": Annotated[
        str | None,
        typer.Option("--output-format", metavar="FORMAT", help="png, jpeg or webp."),
    ],
    "input": Annotated[
        str | None,
        typer.Option("--input", metavar="FILE|-", help="JSON body of the request; other options change it."),
    ],
}
"""By parameter name; all but `image`, `lora` and `input` are fields of the input under their own names."""

MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def takes_input(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command INPUT_OPTIONS before its own; it gets the request body that they make as `body`."""
    own = [each for each in signature(command).parameters.values() if each.name != "body"]
    given = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in INPUT_OPTIONS.items()
    ]

    @wraps(command)
    def run(**options: Any) -> None:
        body = build_body(**{name: options.pop(name) for name in INPUT_OPTIONS})
        command(body=body, **options)

    # What typer reads to make the options.
    run.__signature__ = Signature([*given, *own])  # type: ignore[attr-defined]
    return run


def build_body(
    *,
    input: str | None = None,
    image: str | None = None,
    lora: list[str] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The request body of these options; what is not given is not sent: the server's defaults hold."""
    if input == STDIN and image == STDIN:
        fail("Only one of --input and --image can be read from standard input.", Exit.USAGE)
    body = _read_json(input) if input else {}
    if image is not None:
        body["image_url"] = image_url(image)
    if lora:
        body["loras"] = [_lora(text) for text in lora]
    # Required by the published schema, also when there are none.
    body.setdefault("loras", [])
    return body | {name: value for name, value in fields.items() if value is not None}


def image_url(image: str) -> str:
    """A URL as it is; a file, or standard input for `-`, as a data URI."""
    if image.startswith(("http://", "https://", "data:", "/v1/files/")):
        return image
    if image == STDIN:
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            fail(f"--image: {image} cannot be read: {error.strerror}.", Exit.NO_INPUT)
    known = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
    kind = known or mimetypes.guess_type(image)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _lora(text: str) -> dict[str, Any]:
    """`PATH:SCALE`; what follows the last colon is a scale if it is a number, for a path may hold colons."""
    path, colon, scale = text.rpartition(":")
    if colon:
        try:
            return {"path": path, "scale": float(scale)}
        except ValueError:
            pass
    return {"path": text}


def _read_json(source: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if source == STDIN else Path(source).read_text(encoding="utf-8")
        body = json.loads(text)
    except OSError as error:
        fail(f"--input: {source} cannot be read: {error.strerror}.", Exit.NO_INPUT)
    except ValueError as error:
        fail(f"--input: {source} is not JSON: {error}.", Exit.DATA)
    if not isinstance(body, dict):
        fail(f"--input: {source} does not hold a JSON object.", Exit.DATA)
    return body
