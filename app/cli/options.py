"""Options that make a request: one for each field of the inputs, read from the catalog, and a whole body.

Every help text ends with its flag in use.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable
from functools import cached_property, wraps
from inspect import Parameter, Signature, getdoc, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from app.cli.exits import Exit, fail

if TYPE_CHECKING:
    from models.schema.input_fields import InputField

STDIN = "-"

LORAS = "loras"
"""The field whose entries have a form of their own here, one option each."""

KINDS = {"string": (str, "TEXT"), "number": (float, "NUMBER"), "integer": (int, "N"), "boolean": (bool, None)}
"""Python's type and what stands for a value, by the type of JSON schema; the rest is written as JSON."""
JSON_VALUE = (str, "JSON")

INPUT = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="FILE|-",
        help="JSON body of the request, which the other options change, - reads it: --input body.json",
    ),
]


def input_options() -> dict[str, Any]:
    """By parameter name: an option for each field, as typer reads it, and `input`."""
    from models.schema.input_fields import input_fields

    return {_parameter(field): _option(field) for field in input_fields().values()} | {"input": INPUT}


def _option(field: "InputField") -> Any:
    if field.name == LORAS:
        return Annotated[
            list[str] | None,
            typer.Option(
                _flag(field),
                metavar="PATH[:SCALE]",
                help=f"A LoRA or ControlNet: a URL, hub id or name, up to {field.schema['maxItems']} times: "
                f"{_flag(field)} ink.safetensors:0.8",
            ),
        ]
    kind, metavar = KINDS.get(field.schema.get("type", ""), JSON_VALUE)
    text, names, example = field.description, _flag(field), _example(field)
    choices: list[str] = field.schema.get("enum", [])
    if field.is_picture:
        text, metavar = f"{text}; - reads it", "FILE|URL|-"
    elif field.name == "seed":
        kind, metavar, example = str, "N[,N…]", "1,2,3"
        text = f"{text}; several, with commas between, make a request each"
    elif choices:
        metavar = field.name.rpartition("_")[2].upper()
    elif kind is bool:
        names = f"{names}/--no-{field.name.removeprefix('enable_').replace('_', '-')}"
    default = field.default(lambda name: _flags()[name])
    limits = ", ".join(filter(None, (field.limits(), default and f"else {default}")))
    return Annotated[
        kind | None,
        typer.Option(
            names,
            metavar=metavar,
            autocompletion=(lambda: choices) if choices else None,
            help=f"{_in_flags(text)}{limits and f' ({limits})'}: {f'{_flag(field)} {example}'.rstrip()}",
        ),
    ]


def _example(field: "InputField") -> str:
    """A value of the field, as a shell takes it."""
    schema = field.schema
    if field.is_picture:
        return f"{field.short_name}.png"
    if "examples" in schema:
        return shlex.quote(str(schema["examples"][0]))
    if "enum" in schema:
        return str(next(choice for choice in schema["enum"] if choice != schema.get("default")))
    if schema.get("type") == "boolean":
        return ""
    middle = (schema.get("minimum", 0) + schema.get("maximum", 2)) / 2
    return str(int(middle)) if schema.get("type") == "integer" else f"{middle:g}"


def _parameter(field: "InputField") -> str:
    return field.short_name.removesuffix("s") if field.name == LORAS else field.short_name


def _flag(field: "InputField") -> str:
    return f"--{_parameter(field).replace('_', '-')}"


def _flags() -> dict[str, str]:
    """By the field's name."""
    from models.schema.input_fields import input_fields

    return {name: _flag(field) for name, field in input_fields().items()}


def _in_flags(text: str) -> str:
    """A text of the schema without its backticks, and with a flag for a field."""
    flags = _flags()
    return re.sub(r"`(.*?)`", lambda found: flags.get(found[1], found[1]), text)


def register(cli: typer.Typer, command: Callable[..., None]) -> None:
    """Adds a command that gets the request bodies that its user's options make, as `bodies`.

    Its options are made when somebody asks for them: other commands need not wait for the catalog.
    """

    class InputCommand(TyperCommand):
        @cached_property
        def _whole(self) -> Any:
            whole = typer.Typer(add_completion=False, rich_markup_mode=None)
            whole.command()(takes_input(command))
            return typer.main.get_command(whole)

        @property
        def params(self) -> list[Any]:
            options: list[Any] = self._whole.params
            return options

        @params.setter
        def params(self, _none: list[Any]) -> None:
            """What typer has read of the function below."""

        def invoke(self, ctx: Any) -> Any:
            return ctx.invoke(self._whole.callback, **ctx.params)

    cli.command(command.__name__, cls=InputCommand, help=getdoc(command))(lambda: None)


def takes_input(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the `input_options` before its own."""
    own = [each for each in signature(command).parameters.values() if each.name != "bodies"]
    options = input_options()
    given = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in options.items()
    ]

    @wraps(command)
    def run(**values: Any) -> None:
        bodies = build_bodies(**{name: values.pop(name) for name in options})
        command(bodies=bodies, **values)

    # What typer reads to make the options.
    run.__signature__ = Signature([*given, *own])  # type: ignore[attr-defined]
    return run


def build_bodies(
    *, input: str | None = None, lora: list[str] | None = None, seed: str | None = None, **given: Any
) -> list[dict[str, Any]]:
    """A request body for each seed; what is not given is not sent: the server's defaults hold."""
    from models.schema.input_fields import input_fields

    fields = {_parameter(field): field for field in input_fields().values()}
    pictures = [name for name, field in fields.items() if field.is_picture]
    if [input, *map(given.get, pictures)].count(STDIN) > 1:
        named = ", ".join(f"--{name}" for name in pictures)
        fail(f"Only one of --input, {named} can be read from standard input.", Exit.USAGE)
    seeds = [] if seed is None else _seeds(seed)
    body = _read_json(input) if input else {}
    if lora:
        body[LORAS] = [_lora(text) for text in lora]
    for name, value in given.items():
        if value is not None:
            body[fields[name].name] = _value(fields[name], value)
    return [body | {"seed": each} for each in seeds] or [body]


def _value(field: "InputField", value: Any) -> Any:
    """What an option's value is in the body."""
    if field.is_picture:
        return image_url(value, _flag(field))
    if field.schema.get("type") in KINDS:
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        fail(f"{_flag(field)}: this is not JSON: {error}.", Exit.DATA)


def addressed(body: dict[str, Any], name: str | None) -> tuple[str, dict[str, Any]]:
    """The model id that `name` or, without one, the body itself asks for, and the body as it takes it."""
    from models.schema.catalog import ENDPOINTS, endpoint_for, short_names, with_loras

    model_id = endpoint_for(body).model_id if name is None else short_names().get(name, name)
    return model_id, with_loras(ENDPOINTS[model_id], body) if model_id in ENDPOINTS else body


def flags_named(sentence: str) -> str:
    """A sentence of the input's fields, with each flag in its place."""
    from models.schema.input_fields import input_fields

    flags = _flags()
    names = "|".join(flags)
    sentence = re.sub(
        rf"(^|[; ]){LORAS}\[(\d+)\](?:\.\w+)?(?=: )",
        lambda found: f"{found[1]}{flags[LORAS]}, number {int(found[2]) + 1}",
        sentence,
    )
    sentence = re.sub(rf"(^|; )({names})(?=: )", lambda found: f"{found[1]}{flags[found[2]]}", sentence)
    pictures = "|".join(field.name for field in input_fields().values() if field.is_picture)
    return re.sub(rf"\b({pictures})\b", lambda found: flags[found[0]], sentence)


def image_url(image: str, flag: str = "--image") -> str:
    """A URL as it is; a file, or standard input for `-`, as a data URI. `flag` asked for it."""
    from app.client import data_uri

    if image.startswith(("http://", "https://", "data:", "/v1/files/")):
        return image
    if "://" in image:
        fail(f"{flag}: a URL must begin with https:// or http://, and {image} does not.", Exit.DATA)
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
    if not colon:
        return {"path": text}
    try:
        return {"path": path, "scale": float(scale)}
    except ValueError:
        # In OWNER/REPO:FILE it is a file's name.
        if "/" not in text or path.endswith(".safetensors"):
            fail(f"--lora: {text}: {scale!r} is not a scale, which is a number.", Exit.USAGE)
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
