"""Options that make a request: the input's fields under their own names, an image, a body.

Every help text ends with its flag in use.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import Exit, fail

STDIN = "-"


def _choices(field: str) -> Callable[[], list[str]]:
    """What the shell completes a value with: the schema's own choices."""

    def choices() -> list[str]:
        from models.schema.inputs import ControlNetLoraInput

        allowed: list[str] = ControlNetLoraInput.model_json_schema()["properties"][field]["enum"]
        return allowed

    return choices


INPUT_OPTIONS: dict[str, Any] = {
    "prompt": Annotated[
        str | None,
        typer.Option("--prompt", metavar="TEXT", help="What the picture shows: --prompt 'A red ball'"),
    ],
    "image": Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="FILE|URL|-",
            help="The image that guides or, with --strength or --mask, is changed, - reads it: "
            "--image photo.jpg",
        ),
    ],
    "mask": Annotated[
        str | None,
        typer.Option(
            "--mask",
            metavar="FILE|URL|-",
            help="What is white in it is drawn anew, of the image's size, - reads it: --mask mask.png",
        ),
    ],
    "strength": Annotated[
        float | None,
        typer.Option(
            "--strength",
            metavar="NUMBER",
            help="How far the picture may go from the image, 0 to 1, else 0.6, or 1 with --mask: "
            "--strength 0.5",
        ),
    ],
    "lora": Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="PATH[:SCALE]",
            help="A LoRA or ControlNet: a URL, hub id or name, up to three times: --lora ink.safetensors:0.8",
        ),
    ],
    "image_size": Annotated[
        str | None,
        typer.Option(
            "--image-size",
            metavar="SIZE",
            autocompletion=_choices("image_size"),
            help="square_hd, square, portrait_4_3, portrait_16_9, landscape_4_3 or landscape_16_9, "
            "else auto, which is the image's own shape, or square_hd without one: --image-size square",
        ),
    ],
    "control_scale": Annotated[
        float | None,
        typer.Option(
            "--control-scale",
            metavar="NUMBER",
            help="How strongly the image guides, 0 to 1, else 0.9, or 0.75 with --mask: --control-scale 0.6",
        ),
    ],
    "control_start": Annotated[
        float | None,
        typer.Option(
            "--control-start",
            metavar="NUMBER",
            help="Fraction of the steps before control begins, else 0: --control-start 0.1",
        ),
    ],
    "control_end": Annotated[
        float | None,
        typer.Option(
            "--control-end",
            metavar="NUMBER",
            help="Fraction of the steps after which control ends, else 0.4, or 0.8 with --mask: "
            "--control-end 1",
        ),
    ],
    "preprocess": Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="HOW",
            autocompletion=_choices("preprocess"),
            help="How the control map is made from the image, by canny, depth or pose, else none: "
            "--preprocess canny",
        ),
    ],
    "num_inference_steps": Annotated[
        int | None,
        typer.Option(
            "--num-inference-steps",
            metavar="N",
            help="Denoising steps, 1 to 8, else 8: --num-inference-steps 4",
        ),
    ],
    "seed": Annotated[
        str | None,
        typer.Option(
            "--seed",
            metavar="N[,N…]",
            help="The same seed gives the same picture, -1 draws one, several make as many, else 0: "
            "--seed 1,2,3",
        ),
    ],
    "num_images": Annotated[
        int | None,
        typer.Option(
            "--num-images",
            metavar="N",
            help="Pictures made at once, 1 to 4, with the seeds that follow --seed, else 1: --num-images 4",
        ),
    ],
    "seed_variance": Annotated[
        float | None,
        typer.Option(
            "--seed-variance",
            metavar="NUMBER",
            help="How far the seed changes what the prompt says, 0 to 1, where 0.1 is subtle, else 0: "
            "--seed-variance 0.1",
        ),
    ],
    "enable_prompt_expansion": Annotated[
        bool | None,
        typer.Option(
            "--enable-prompt-expansion/--no-prompt-expansion",
            help="Let the model write a more detailed prompt first, else not: --enable-prompt-expansion",
        ),
    ],
    "output_format": Annotated[
        str | None,
        typer.Option(
            "--output-format",
            metavar="FORMAT",
            autocompletion=_choices("output_format"),
            help="jpeg or webp, else png: --output-format webp",
        ),
    ],
    "input": Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE|-",
            help="JSON body of the request, which the other options change, - reads it: --input body.json",
        ),
    ],
}
"""By parameter name; all but `image`, `mask`, `lora` and `input` are fields of the input under their own
names."""


def takes_input(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command INPUT_OPTIONS before its own; it gets the request bodies that they make as `bodies`."""
    own = [each for each in signature(command).parameters.values() if each.name != "bodies"]
    given = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in INPUT_OPTIONS.items()
    ]

    @wraps(command)
    def run(**options: Any) -> None:
        bodies = build_bodies(**{name: options.pop(name) for name in INPUT_OPTIONS})
        command(bodies=bodies, **options)

    # What typer reads to make the options.
    run.__signature__ = Signature([*given, *own])  # type: ignore[attr-defined]
    return run


def build_bodies(
    *,
    input: str | None = None,
    image: str | None = None,
    mask: str | None = None,
    lora: list[str] | None = None,
    seed: str | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """A request body for each seed; what is not given is not sent: the server's defaults hold."""
    if [input, image, mask].count(STDIN) > 1:
        fail("Only one of --input, --image and --mask can be read from standard input.", Exit.USAGE)
    seeds = [] if seed is None else _seeds(seed)
    body = _read_json(input) if input else {}
    if image is not None:
        body["image_url"] = image_url(image)
    if mask is not None:
        body["mask_image_url"] = image_url(mask, "--mask")
    if lora:
        body["loras"] = [_lora(text) for text in lora]
    body |= {name: value for name, value in fields.items() if value is not None}
    return [body | {"seed": each} for each in seeds] or [body]


def addressed(body: dict[str, Any], name: str | None) -> tuple[str, dict[str, Any]]:
    """The model id that `name` or, without one, the body itself asks for, and the body as it takes it."""
    from models.schema.catalog import ENDPOINTS, SHORT_NAMES, endpoint_for

    model_id = endpoint_for(body).model_id if name is None else SHORT_NAMES.get(name, name)
    if model_id in ENDPOINTS and "loras" in ENDPOINTS[model_id].input_model.model_fields:
        # Required by the published schema, also when there are none.
        body = {"loras": []} | body
    return model_id, body


def flags_named(sentence: str) -> str:
    """A sentence of the input's fields, with each flag in its place."""
    flags = "|".join(INPUT_OPTIONS.keys() - {"image", "mask", "lora", "input"})
    sentence = re.sub(rf"(^|; )({flags})(?=: )", lambda found: f"{found[1]}{_flag(found[2])}", sentence)
    sentence = re.sub(r"(^|[; ])loras\[(\d+)\](?:\.\w+)?(?=: )", _lora_flag, sentence)
    sentence = re.sub(r"(^|; )loras(?=: )", r"\1--lora", sentence)
    return sentence.replace("mask_image_url", "--mask").replace("image_url", "--image")


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _lora_flag(found: re.Match[str]) -> str:
    return f"{found[1]}--lora, number {int(found[2]) + 1}"


def image_url(image: str, flag: str = "--image") -> str:
    """A URL as it is; a file, or standard input for `-`, as a data URI. `flag` asked for it."""
    from app.client import data_uri

    if image.startswith(("http://", "https://", "data:", "/v1/files/")):
        return image
    if image == STDIN:
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            fail(f"{flag}: {image} cannot be read: {error.strerror}.", Exit.NO_INPUT)
    return data_uri(data)


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        fail(f"--seed: {text!r} is not a whole number, nor several with commas between.", Exit.USAGE)


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
