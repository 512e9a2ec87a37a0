"""What a worker says of itself to other processes of its machine, beside its entry in Redis.

A health check reads it every half minute: a file costs it nothing, importing a client of Redis 0.2 s.
"""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

FRESH_SECONDS = 15.0
"""A worker that has said nothing for so long is not well; it speaks once a second."""

TAKES_REQUESTS = ("ready", "busy", "asleep", "waking")
"""States in which a request that comes is served; asleep, it wakes the worker."""


def beat(kind: str, state: str) -> None:
    """Says how this process fares: to be called about once a second, while Redis hears it too.

    A temporary folder that cannot be written costs the check, and nothing else.
    """
    with suppress(OSError):
        _folder().mkdir(mode=0o700, exist_ok=True)
        if _is_ours():
            file = _folder() / f"{kind}-{os.getpid()}"
            if not file.exists():
                _forget_the_killed()
            file.write_text(state)


def end(kind: str) -> None:
    """This process is leaving."""
    with suppress(OSError):
        (_folder() / f"{kind}-{os.getpid()}").unlink()


def fault() -> str | None:
    """Why not every kind of worker of this machine takes requests, as a sentence; None: each does."""
    said: list[tuple[str, str]] = []
    if _is_ours():
        for file in sorted(_folder().iterdir()):
            with suppress(OSError):
                # Empty for the moment in which it is written anew.
                if time.time() - file.stat().st_mtime < FRESH_SECONDS and (state := file.read_text()):
                    said.append((file.name.partition("-")[0], state))
    kinds = {kind for kind, _ in said}
    if said and kinds == {kind for kind, state in said if state in TAKES_REQUESTS}:
        return None
    seen = ", ".join(f"{kind} {state}" for kind, state in said)
    return f"Not every kind of worker of this machine takes requests; seen: {seen or 'none'}."


def _forget_the_killed() -> None:
    for file in _folder().iterdir():
        if time.time() - file.stat().st_mtime > FRESH_SECONDS:
            file.unlink(missing_ok=True)


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"zturbo-workers-{os.getuid()}"


def _is_ours() -> bool:
    """The temporary folder is everybody's: one that somebody else made in ours' place is left alone."""
    try:
        status = _folder().stat(follow_symlinks=False)
    except OSError:
        return False
    return status.st_uid == os.getuid()
