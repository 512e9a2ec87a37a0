"""Pictures and answers as a command gives them to its user: saved, opened, printed."""

import json
import os
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import Exit, fail
from app.terminal import tell

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object an answer: zturbo submit … --json | jq .seed")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR|FILE",
        help="Where pictures are saved, a folder, or a file, whose suffix says the format, else here: "
        "--out pictures",
    ),
]
Open = Annotated[
    bool, typer.Option("--open", help="Show each picture once it is saved: zturbo submit … --open")
]


def _pictures_asked(bodies: list[dict[str, Any]]) -> int:
    """How many pictures these request bodies ask for."""
    counts = (body.get("num_images", 1) for body in bodies)
    # Another type is refused by whoever checks the body.
    return sum(count if isinstance(count, int) else 1 for count in counts)


def check_out(out: Path | None, pictures: int) -> None:
    """Ends the command where several pictures would go into one file, or no file can be written there."""
    if pictures > 1 and out is not None and _is_file(out):
        fail(f"--out: {pictures} pictures do not go into one file; name a folder.", Exit.USAGE)
    if out is None:
        return
    folder = out.parent if _is_file(out) else next(each for each in (out, *out.parents) if each.exists())
    if not folder.is_dir():
        fail(f"--out: {folder} is no folder that is there.", Exit.CANNOT_CREATE)
    if not os.access(folder, os.W_OK | os.X_OK):
        fail(f"--out: {folder} cannot be written by this user.", Exit.CANNOT_CREATE)


def bodies_for(out: Path | None, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The request bodies, with the format of `out`'s suffix where it names a picture's file.

    Ends the command where `out` cannot be, or a body asks for another format.
    """
    check_out(out, _pictures_asked(bodies))
    if out is None or not _is_file(out):
        return bodies
    named = _format(out)
    for body in bodies:
        if (asked := body.get("output_format", named)) != named:
            said = f"--out: {out} is the name of a {named} file, but --output-format says {asked}"
            fail(f"{said}; leave one of them out.", Exit.USAGE)
    return [body | {"output_format": named} for body in bodies]


def check_format(out: Path, name: str) -> None:
    """Ends the command where `out` names a file of another format than the picture called `name` has."""
    if _is_file(out) and _format(out) != _format(Path(name)):
        fail(f"--out: {out} is the name of a {_format(out)} file, but the picture is {name}.", Exit.USAGE)


def save(out: Path, name: str, write: Callable[[Path], object]) -> Path:
    """Has `write` make the file `out` if that names a picture's, else `name` in this folder, which is made.

    What cannot be written ends the command.
    """
    path = out
    try:
        if not _is_file(out):
            out.mkdir(parents=True, exist_ok=True)
            path = out / name
        write(path)
    except OSError as error:
        # The error may name a file that would have been given this name in the end.
        fail(f"{path} cannot be written: {error.strerror}.", Exit.CANNOT_CREATE)
    return path


def unused(out: Path, name: str) -> str:
    """`name`, with a number behind its stem where the folder `out` has a file of that name."""
    path = Path(name)
    numbered = (f"{path.stem}-{number}{path.suffix}" for number in count(2))
    return next(each for each in chain([name], numbered) if not (out / each).exists())


def _is_file(out: Path) -> bool:
    return _format(out) is not None and not out.is_dir()


def _format(file: Path) -> str | None:
    from app.client import FORMATS

    return FORMATS.get(file.suffix.lower())


def show(saved: list[Path]) -> None:
    """Opens pictures with what the desktop opens pictures with; a machine without one is no failure."""
    for path in saved:
        if typer.launch(str(path)) != 0:
            tell(f"{path} is saved, but nothing here can show it.", err=True, fg="yellow")


def print_answer(body: dict[str, Any], as_json: bool, words: str) -> None:
    tell(json.dumps(body, indent=2, ensure_ascii=False) if as_json else words)
