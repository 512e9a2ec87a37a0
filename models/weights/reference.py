"""How a caller names a checkpoint file: a URL, a file on the hub, or a file in a local folder.

Forms: `https://host/file.safetensors`, `owner/repo`, `owner/repo/folder/file.safetensors`,
`owner/repo:folder/file[.safetensors]`, `name[.safetensors]`, `folder/name.safetensors`. The caller's own text
never becomes a path: what is returned here has been matched part by part.
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

SUFFIX = ".safetensors"
_PART = re.compile(r"\w[\w.\- +()\[\],&]*")
_MAX_PART_BYTES = 200
_NOT_IN_A_URL = re.compile(r"[\x00- \\\x7f]")
_REPO_PART = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


class ReferenceFault(ValueError):
    """The text names no file in any known form; the message says what is wrong with it."""


@dataclass(frozen=True)
class UrlReference:
    url: str


@dataclass(frozen=True)
class HubReference:
    repo_id: str
    filename: str | None
    """None where the repository chooses (see `models.weights.hub.choose_file`)."""


@dataclass(frozen=True)
class LocalReference:
    name: str
    """The file's path relative to the local folder, with its suffix."""


Reference = UrlReference | HubReference | LocalReference


def read_reference(text: str) -> Reference:
    """Which file `text` names. Raises ReferenceFault."""
    if "://" in text:
        check_url(text)
        return UrlReference(text)
    repo_id, colon, filename = text.partition(":")
    if colon:
        return HubReference(_checked_repo_id(repo_id), _with_suffix(_checked_name(filename)))
    parts = text.split("/")
    if len(parts) == 1 or (len(parts) == 2 and text.endswith(SUFFIX)):
        return LocalReference(_with_suffix(_checked_name(text)))
    repo_id = _checked_repo_id("/".join(parts[:2]))
    if len(parts) == 2:
        return HubReference(repo_id, None)
    filename = _checked_name("/".join(parts[2:]))
    if not filename.endswith(SUFFIX):
        raise ReferenceFault(f"{filename!r} is not a {SUFFIX} file")
    return HubReference(repo_id, filename)


def is_repo_id(text: str) -> bool:
    parts = text.split("/")
    return (
        len(parts) == 2
        and all(_REPO_PART.fullmatch(part) for part in parts)
        and ".." not in text
        and "--" not in text
    )


def is_file_name(text: str) -> bool:
    """True for a plain relative path: no `..`, no hidden part, no separator but `/`."""
    return all(
        _PART.fullmatch(part) and ".." not in part and len(part.encode()) <= _MAX_PART_BYTES
        for part in text.split("/")
    )


def check_url(text: str) -> SplitResult:
    """The parts of an absolute http or https URL. Raises ReferenceFault for any other text."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")
        text.encode()
    except ValueError:
        raise ReferenceFault("is not a URL: its host or its port cannot be") from None
    if parts.scheme not in ("http", "https"):
        raise ReferenceFault("a URL must begin with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise ReferenceFault("a URL must have no user name or password in it")
    # A percent sign gives an IPv6 address a scope, which means something on one machine alone.
    if not host or "%" in host or _NOT_IN_A_URL.search(text):
        raise ReferenceFault("is not a URL: it has no host, or a space or backslash in it")
    return parts


def _checked_repo_id(text: str) -> str:
    if not is_repo_id(text):
        raise ReferenceFault(f"{text!r} is not a hub id like 'owner/repo'")
    return text


def _checked_name(text: str) -> str:
    if not is_file_name(text):
        raise ReferenceFault(f"{text!r} is not a file name, a URL or a hub id")
    return text


def _with_suffix(name: str) -> str:
    return name if name.endswith(SUFFIX) else name + SUFFIX
