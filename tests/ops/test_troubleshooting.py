"""docs/troubleshooting.md: every sentence that it explains is one that the code says."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
VARYING = "…"
PLACEHOLDER = re.compile(r"\{\w+\}|%[sd]")


def explained() -> list[str]:
    """The first column of each table of sentences."""
    tables = re.findall(r"\| it says \|.*?\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    return [row.split(" | ")[0].removeprefix("| ") for table in tables for row in table.splitlines()]


@cache
def said() -> str:
    """Every string in the code, one a line."""
    files = (file for package in ("app", "worker", "models") for file in (ROOT / package).rglob("*.py"))
    return "\n".join(sentence for file in files for sentence in strings(ast.parse(file.read_text())))


def strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(part_of_a_sentence, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield PLACEHOLDER.sub(VARYING, node.value)


def part_of_a_sentence(part: ast.expr) -> str:
    """A part of an f-string, without how `zturbo` is called on each machine."""
    if isinstance(part, ast.FormattedValue):
        return "zturbo" if ast.unparse(part.value) == "zturbo()" else VARYING
    return str(ast.literal_eval(part))


def test_there_are_sentences() -> None:
    assert len(explained()) > 30


@pytest.mark.parametrize("sentence", explained())
def test_sentence_is_said_by_the_code(sentence: str) -> None:
    assert sentence in said()
