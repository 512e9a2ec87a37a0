"""Exit statuses of the commands, numbered as in sysexits.h so that a script can tell them apart."""

from enum import IntEnum
from typing import NoReturn

import typer

from app.terminal import tell


class Exit(IntEnum):
    FAILED = 1
    """The answer is no: a request failed, files are missing, a picture says nothing of itself."""
    USAGE = 64
    DATA = 65
    """The input is refused."""
    NO_INPUT = 66
    """A file cannot be read."""
    UNAVAILABLE = 69
    """The server cannot be reached."""
    SOFTWARE = 70
    """The server, or this program, is at fault."""
    CANNOT_CREATE = 73
    """The output cannot be written."""
    TRY_LATER = 75
    NO_PERMISSION = 77
    CONFIG = 78
    """The settings are wrong."""
    INTERRUPTED = 130


def fail(message: str, status: Exit) -> NoReturn:
    """Say why on standard error and leave."""
    tell(message, err=True, fg="red")
    raise typer.Exit(status)
