"""The README against the code: its table of fields, its list of commands, its list of files.

The list of files is written by: make readme
"""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

from app.cli import cli
from models.schema.inputs import ControlNetLoraInput

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- files: made by make readme -->", "<!-- end of files -->"
PACKAGES = ("app", "worker", "models")


def first_sentence(path: Path) -> str:
    paragraph = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).split(". ")[0].rstrip(".")


def file_list() -> str:
    rows = ["| file | what it is |", "|---|---|"]
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if sentence := first_sentence(path):
                rows.append(f"| `{path.relative_to(ROOT)}` | {sentence} |")
    return "\n".join(rows)


def parts() -> tuple[str, str, str]:
    """The README before its list of files, the list, and what follows."""
    before, _, rest = README.read_text().partition(BEGIN)
    listed, _, after = rest.partition(END)
    return before, listed.strip(), after


def field_rows() -> dict[str, list[str]]:
    """Field -> the cells of its row in the table of fields."""
    table = README.read_text().partition("## Every field")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return {match[1]: row for row in rows if (match := re.match(r"`([\w.\[\]]+)`$", row[0]))}


def test_list_of_files_is_up_to_date() -> None:
    assert parts()[1] == file_list(), "run: make readme"


def test_every_field_has_a_row_with_a_test_that_is_there() -> None:
    rows = field_rows()
    fields = set(ControlNetLoraInput.model_fields)
    assert fields <= set(rows)
    source = (ROOT / "tests/e2e/test_fields.py").read_text()
    for name, row in rows.items():
        tests = re.findall(r"`(test_\w+)`", row[-1])
        assert tests, name
        assert all(f"def {test}(" in source for test in tests), name


def test_defaults_in_the_table_are_the_schema_s() -> None:
    for name, field in ControlNetLoraInput.model_fields.items():
        if field.is_required():
            continue
        shown = field_rows()[name][1].strip("`")
        default = field.get_default(call_default_factory=True)
        assert shown == (str(default).lower() if isinstance(default, bool) else str(default)), name


@pytest.mark.parametrize("command", sorted(get_command(cli).commands))
def test_every_command_is_told_of(command: str) -> None:
    assert f"`zturbo {command}" in README.read_text()


def test_every_make_target_that_is_named_is_there() -> None:
    named = set(re.findall(r"make ([a-z-]+)`", README.read_text()))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert named
    assert named <= targets


def test_every_file_that_is_named_is_there() -> None:
    before, _, after = parts()
    named = re.findall(r"(?:\]\(|src(?:set)?=\")(?!http|#)([^)\"]+)[)\"]", before + after)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


if __name__ == "__main__":
    before, _, after = parts()
    README.write_text(f"{before}{BEGIN}\n{file_list()}\n{END}{after}")
