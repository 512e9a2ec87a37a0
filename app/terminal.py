"""Texts that others wrote, shown so that they cannot command the terminal.

A server's sentence, a file's metadata or a LoRA's name may hold escape sequences, which move the cursor, set
the clipboard or hide what was said. Every command prints by `tell`; ruff holds that.
"""

import re
from typing import Any

import typer

_COMMANDING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that turn the direction of writing, lone surrogates."""


def printable(text: object) -> str:
    r"""`str(text)` with what commands a terminal written as JSON escapes it: `\u001b` and the like."""
    return _COMMANDING.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


def printable_body(body: Any) -> Any:
    """A body of JSON values whose every text, names of fields included, is `printable`."""
    match body:
        case dict():
            return {printable(name): printable_body(value) for name, value in body.items()}
        case list():
            return [printable_body(value) for value in body]
        case str():
            return printable(body)
        case _:
            return body


def tell(text: object, *, err: bool = False, **style: Any) -> None:
    """Print `text` and a newline, on standard error with `err`; `style` is that of `typer.style`."""
    text = printable(text)
    typer.echo(typer.style(text, **style) if any(style.values()) else text, err=err)
