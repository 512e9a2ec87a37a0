"""The documents against the repository: what the code makes is up to date, and what they name is there."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.cli.exits import Exit
from app.config import Settings
from app.dialects import dialects_of
from app.fal.bodies import MODELS
from app.links import Links
from models.schema.catalog import ENDPOINTS
from models.schema.inputs import ControlNetLoraInput
from models.weights.published import DETECTORS, Published
from scripts.documents import CLI_PAGE, COMMANDS, ROOT, documents, explained, flags

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "training/README.md", "benchmarks/NOTES.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
OURS = ("app", "worker", "models", "benchmarks", "scripts", "training", "tests", "docs", "deploy", "examples")
README_LINES = 220
"""A newcomer reads so many."""


def code(page: Path) -> str:
    """The code spans and blocks of a page, one a line."""
    text = page.read_text()
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return "\n".join([*blocks, *spans, *indented])


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"(?:\]\(|src(?:set)?=\")(?!https?:)([^)\"\s]+)[)\"]", page.read_text()):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@cache
def names_of_tests() -> frozenset[str]:
    """Names of the test functions and test files."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    found = {
        name
        for file in files
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE)
    }
    return frozenset(found | {file.stem for file in files})


def unknown_names(page: Path) -> Iterator[str]:
    """What a page's code names and is not there: targets, commands, modules, settings, tests, files."""
    text = code(page)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    settings = {f"ZTURBO_{name.upper()}" for name in Settings.model_fields}
    in_files = {f"{name}_FILE" for name in settings}
    # Those of the commands that call a server, wherever it is.
    clients = {"ZTURBO_BASE_URL", "ZTURBO_TOKEN"}
    for name in re.findall(r"\bmake ([a-z-]+)", text):
        if name not in targets:
            yield f"make {name}"
    for name in re.findall(r"(?:^|[ /`])zturbo ([a-z]+)\b", text, re.MULTILINE):
        if name not in COMMANDS:
            yield f"zturbo {name}"
    for name in re.findall(r"python -m ((?:app|benchmarks|scripts|training|tests)[\w.]*)", text):
        if find_spec(name) is None:
            yield f"python -m {name}"
    for name in re.findall(r"\bZTURBO_[A-Z0-9_]*[A-Z0-9]\b", text):
        if name not in settings | in_files and not name.startswith("ZTURBO_TEST_") and name not in clients:
            yield name
    for name in re.findall(r"\btest_\w+", text):
        if name not in names_of_tests():
            yield name
    for name in re.findall(rf"(?<![\w/.:-])((?:{'|'.join(OURS)})/[\w/.-]*\w)", text):
        if not (ROOT / name).exists():
            yield name


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_document_that_is_made_from_the_code_is_up_to_date(path: Path) -> None:
    assert path.read_text() == documents()[path], "run: make documents"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_everything_that_a_page_names_is_there(page: Path) -> None:
    assert sorted(set(unknown_names(page))) == []


def test_readme_is_not_longer_than_a_newcomer_reads() -> None:
    assert (ROOT / "README.md").read_text().count("\n") <= README_LINES


def test_readme_has_every_endpoint_beside_what_each_dialect_calls_it() -> None:
    rows = re.findall(
        r"^\| (`turbo.*?) \| prompt.*? \| (`.*?`) \| `(.*?)`", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    told = {
        f"tongyi-mai/z-image/{ours}": (f"fal-ai/z-image/{fal}", f"/v1/images/{openai}")
        for our_cell, fal_cell, openai in rows
        for ours, fal in zip(re.findall(r"`(.*?)`", our_cell), re.findall(r"`(.*?)`", fal_cell), strict=True)
    }
    assert told.keys() == ENDPOINTS.keys()
    for model_id, (fal, openai) in told.items():
        called = {each.dialect: each for each in dialects_of(ENDPOINTS[model_id], Links("http://host"))}
        assert (called["fal"].model, called["OpenAI"].path) == (fal, openai)
    assert len(MODELS) == len(told)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_readme_names_every_command(command: str) -> None:
    assert f"`zturbo {command}" in (ROOT / "README.md").read_text()


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_every_flag_ends_with_the_flag_in_use(command: str) -> None:
    for flag in flags(COMMANDS[command]):
        _, example = explained(flag)
        is_argument = flag.param_type_name == "argument"
        assert any(name in example for name in flag.opts) or (is_argument and example), flag.help


def test_help_of_every_flag_tells_its_default() -> None:
    """By typer where the command itself has one, else in words: the settings or the server have it."""
    known = {
        name: field.get_default(call_default_factory=True)
        for fields in (ControlNetLoraInput.model_fields, Settings.model_fields)
        for name, field in fields.items()
        if name != "data_dir" and not field.is_required()
    }
    for flag in (flag for command in COMMANDS.values() for flag in flags(command)):
        if (
            flag.required
            or flag.default is not None
            or flag.name in ("prompt", "image", "mask", "lora", "input", "what")
        ):
            continue
        default = known.get(flag.name)
        told = f"{default:g}" if isinstance(default, float) else default
        expected = r"\belse " if default in (None, False) else rf"\b(else|or) {told}(?![\w.])"
        assert re.search(expected, explained(flag)[0]), flag.help


def test_every_exit_status_is_explained() -> None:
    told = CLI_PAGE.read_text().partition("## Exit status")[2].partition("\n## ")[0]
    assert [status for status in Exit if f"| {status.value} |" not in told] == []


@pytest.mark.parametrize("row", DETECTORS, ids=lambda row: row.about)
def test_every_detector_is_listed_with_its_repository(row: Published) -> None:
    assert f"`{row.repo_id}`" in (ROOT / "docs" / "models.md").read_text()


def field_rows() -> dict[str, list[str]]:
    """The cells of the table of fields, by field."""
    table = (ROOT / "docs" / "api.md").read_text().partition("## Every field")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return {match[1]: row for row in rows if (match := re.match(r"`([\w.\[\]]+)`$", row[0]))}


def test_every_field_has_a_row_that_names_a_test() -> None:
    rows = field_rows()
    assert {name for endpoint in ENDPOINTS.values() for name in endpoint.input_model.model_fields} <= set(
        rows
    )
    assert [name for name, row in rows.items() if not re.search(r"`test_\w+`", row[-1])] == []


def test_defaults_in_the_table_of_fields_are_the_schema_s() -> None:
    for name, field in ControlNetLoraInput.model_fields.items():
        if field.is_required():
            continue
        shown = field_rows()[name][1].strip("`")
        default = field.get_default(call_default_factory=True)
        assert shown == (str(default).lower() if isinstance(default, bool) else str(default)), name
