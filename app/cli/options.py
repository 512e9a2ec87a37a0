"""Command-line options that several commands share: the input's fields under their own names, the output."""

import base64
import json
import mimetypes
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import Exit, fail

STDIN = "-"

Prompt = Annotated[str | None, typer.Option("--prompt", help="What the picture shows.")]
Image = Annotated[
    str | None,
    typer.Option("--image", metavar="FILE|URL|-", help="The image that guides; - reads it."),
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora", metavar="PATH[:SCALE]", help="A LoRA or ControlNet: URL, hub id or name. Up to three times."
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="auto|square_hd|square|portrait_4_3|portrait_16_9|landscape_4_3|landscape_16_9",
        help="Size of the picture; auto keeps the image's shape.",
    ),
]
ControlScale = Annotated[
    float | None, typer.Option("--control-scale", help="How strongly the image guides, 0 to 1.")
]
ControlStart = Annotated[
    float | None, typer.Option("--control-start", help="Fraction of the steps before control begins.")
]
ControlEnd = Annotated[
    float | None, typer.Option("--control-end", help="Fraction of the steps after which control ends.")
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess", metavar="none|canny|depth|pose", help="How the control map is made from the image."
    ),
]
Steps = Annotated[int | None, typer.Option("--num-inference-steps", help="Denoising steps, 1 to 8.")]
Seed = Annotated[
    int | None, typer.Option("--seed", help="The same seed gives the same picture; -1 draws one.")
]
Expand = Annotated[
    bool | None,
    typer.Option("--enable-prompt-expansion/--no-prompt-expansion", help="Let the model enrich it first."),
]
OutputFormat = Annotated[
    str | None, typer.Option("--output-format", metavar="png|jpeg|webp", help="File format of the picture.")
]
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="FILE|-", help="JSON body of the request; the other options change it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Where to save the picture."),
]

MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def build_body(
    *,
    input: str | None,
    image: str | None,
    loras: list[str] | None,
    **fields: Any,
) -> dict[str, Any]:
    """The request body of these options; what is not given is not sent: the server's defaults hold."""
    if input == STDIN and image == STDIN:
        fail("Only one of --input and --image can be read from standard input.", Exit.USAGE)
    body = _read_json(input) if input else {}
    if image is not None:
        body["image_url"] = image_url(image)
    if loras:
        body["loras"] = [_lora(text) for text in loras]
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
