"""Pictures and answers as a command gives them to its user: saved, opened, printed."""

import json
import os
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
        help="Where pictures are saved, a folder unless it ends as a picture's file does, else here: "
        "--out pictures",
    ),
]
Open = Annotated[
    bool, typer.Option("--open", help="Show each picture once it is saved: zturbo submit … --open")
]


def pictures_asked(bodies: list[dict[str, Any]]) -> int:
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


def destination(out: Path, name: str) -> Path:
    """`out` itself if it names a picture's file, else `name` in it, a folder that is made. Raises OSError."""
    if _is_file(out):
        return out
    out.mkdir(parents=True, exist_ok=True)
    return out / name


def _is_file(out: Path) -> bool:
    from app.client import PICTURE_SUFFIXES

    return out.suffix.lower() in PICTURE_SUFFIXES and not out.is_dir()


def show(saved: list[Path]) -> None:
    """Opens pictures with what the desktop opens pictures with; a machine without one is no failure."""
    for path in saved:
        if typer.launch(str(path)) != 0:
            tell(f"{path} is saved, but nothing here can show it.", err=True, fg="yellow")


def print_answer(body: dict[str, Any], as_json: bool, words: str) -> None:
    tell(json.dumps(body, indent=2, ensure_ascii=False) if as_json else words)
