"""Exchanges of HTTP as a document has them, and whether an answer is the documented one."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

COMMENT = r"(?:<!-- (\w+): (.*?) -->\n)?"
CALL = r"```http\n(\w+) (\S+) HTTP/1\.1\n(.*?)```\n\n"
ANSWER = r"```http\nHTTP/1\.1 (\d+)[^\n]*\n(.*?)```"

VARYING = ("size", "file_size", "finished_last_minute", "created")
"""Whole numbers that are not the same in every run."""


class Exchange(NamedTuple):
    when: str
    """`before`, `meanwhile`, or nothing."""
    moves: list[str]
    method: str
    path: str
    headers: dict[str, str]
    body: str
    status: int
    said_headers: dict[str, str]
    said: str


def exchanges(document: str) -> Iterator[Exchange]:
    found = re.findall(COMMENT + CALL + ANSWER, document, re.DOTALL)
    assert len(found) * 2 == document.count("```http")
    for when, moves, method, path, sent, status, said in found:
        headers, body = parted(sent)
        said_headers, said_body = parted(said)
        yield Exchange(
            when, moves.split(", "), method, path, headers, body, int(status), said_headers, said_body
        )


def parted(message: str) -> tuple[dict[str, str], str]:
    head, _, body = f"\n{message}".partition("\n\n")
    lines = [line.partition(": ") for line in head.splitlines() if line]
    return {name: value for name, _, value in lines}, body.rstrip("\n")


def fits(said: Any, answered: Any, name: str = "") -> bool:
    """Whether an answer is the documented one; … stands for any text or thing, 1.5 for any number."""
    if said in ({"…": "…"}, "…"):
        return True
    if isinstance(said, dict) and isinstance(answered, dict):
        return said.keys() == answered.keys() and all(fits(said[key], answered[key], key) for key in said)
    if isinstance(said, list) and isinstance(answered, list):
        return len(said) == len(answered) and all(map(fits, said, answered))
    if isinstance(said, str) and isinstance(answered, str):
        return re.fullmatch(".*".join(map(re.escape, said.split("…"))), answered, re.DOTALL) is not None
    if isinstance(said, float) or name in VARYING:
        return isinstance(answered, int | float)
    return bool(said == answered)


def events(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    name = "message"
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
            name = "message"
