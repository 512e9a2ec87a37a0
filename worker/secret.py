"""This server's own secret: made once, kept in DATA_DIR, never sent. What it signs nobody else can guess."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from worker.errors import SetupError

SECRET_BYTES = 32
FILE_NAME = "secret"


class Secret:
    """Read, or made, when it is first needed; every process of one DATA_DIR has the same."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE_NAME
        self._key = b""

    def derive(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that follow from the secret and these words, and tell nothing of it.

        Raises SetupError when the secret can be neither read nor made, or is too short for one.
        """
        self._key = self._key or _read_or_make(self._path)
        # Each word with its length: no two lists of words are one message.
        message = "".join(f"{len(part)}:{part}" for part in (purpose, *parts))
        return hmac.new(self._key, message.encode(), hashlib.sha256).digest()


def _read_or_make(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise SetupError(
            f"This server's secret {path} cannot be read or made: {error.strerror}. Let this user write "
            "there, or choose another data folder by --data-dir."
        ) from error
    if len(key) < SECRET_BYTES:
        raise SetupError(
            f"This server's secret {path} has {len(key)} bytes of at least {SECRET_BYTES}. Put it back from "
            "a backup; or delete it, then callers have to ask anew for what their webhooks are signed with."
        )
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    # Fails when another process was first; then its secret is ours.
    with suppress(FileExistsError):
        os.link(part, path)
    part.unlink()
