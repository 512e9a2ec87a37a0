"""Three sentences about the code, held by walking its imports.

app -> worker -> models, never back. Neither `app` nor `worker`, nor the light half of `models`, imports torch
or what brings torch with it. No file of ours is longer than a reader can hold.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("app", "worker", "models")
MAY_IMPORT = {"app": {"app", "worker", "models"}, "worker": {"worker", "models"}, "models": {"models"}}
HEAVY = {
    "accelerate",
    "controlnet_aux",
    "diffusers",
    "peft",
    "skimage",
    "timm",
    "torch",
    "torchvision",
    "transformers",
}
HEAVY_ROOM = "models.inference"
MOST_LINES = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def imports(tree: ast.AST, *, late: bool) -> Iterator[str]:
    """Full names of what a module imports; `late` counts what it imports only when a function runs, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the arrows"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, late=late)


@cache
def imports_at_load(name: str) -> frozenset[str]:
    return frozenset(imports(ast.parse(modules()[name].read_text()), late=False))


def ours(imported: str) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    parts = imported.split(".")
    return next(
        (name for n in (len(parts), len(parts) - 1) if (name := ".".join(parts[:n])) in modules()), None
    )


def loaded_with(name: str) -> set[str]:
    """Every module of ours that loading `name` loads: its packages, its imports, and theirs."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        if (module := todo.pop()) in seen:
            continue
        seen.add(module)
        todo += [parent for parent in (module.rpartition(".")[0],) if parent in modules()]
        todo += [found for each in imports_at_load(module) if (found := ours(each))]
    return seen


def test_imports_point_from_app_to_worker_to_models_and_never_back() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, path in modules().items()
        for imported in imports(ast.parse(path.read_text()), late=True)
        if (package := imported.split(".")[0]) in {*PACKAGES, "tests", "benchmarks"}
        and package not in MAY_IMPORT[name.split(".")[0]]
    ]
    assert not wrong


def test_neither_app_nor_worker_nor_light_models_load_torch() -> None:
    light = [name for name in modules() if name.split(".")[0] in ("app", "worker")]
    light += [name for name in modules() if name.startswith("models.") and not name.startswith(HEAVY_ROOM)]
    wrong = [
        f"{name} loads {imported} by {module}"
        for name in light
        for module in loaded_with(name)
        for imported in imports_at_load(module)
        if imported.split(".")[0] in HEAVY
    ]
    assert not wrong


@pytest.mark.parametrize("module", ["app.main", "app.cli", "worker.host.supervisor"])
def test_module_is_imported_without_torch(module: str) -> None:
    program = f"import {module}, sys; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == ""


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    folders = (*PACKAGES, "tests", "benchmarks", "examples")
    lines = {
        str(path.relative_to(ROOT)): path.read_text().count("\n")
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
