"""The arrows between packages, folders and files, held by reading every import.

Torch and what brings it stand in `models/inference` alone, whose folders are floors: each imports from the
floors below it. Neither files in `app`, `worker` and `models` nor folders inside `worker` and `models` import
in circles. No file of ours is longer than a reader can hold.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("app", "worker", "models")
MAY_IMPORT = {"app": {"app", "worker", "models"}, "worker": {"worker", "models"}, "models": {"models"}}

INFERENCE = "models.inference"
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
STARTERS = {"app.cli.doctor", "app.cli.generate", "app.cli.machine", "worker.runtime.process"}
"""Those who load an engine in a process of their own, or tell of one, and import it just then."""
LATE_IN_MODELS = ("controlnet_aux.", "gguf.", "models.inference.denoise.swiglu.")
"""Packages of extras, or that warn and draw in much of the rest, and what needs Triton, which not all have:
imported when they are asked for."""

FLOORS = ("denoise", "loading", "control", "device", "lora", "fast_path")
"""Folders of models/inference from the ground up; its own files stand on top of them all."""

Arrow = tuple[str, str]
"""From what imports to what is imported."""

MOST_LINES = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def imported_in(node: ast.AST, *, at_load: bool = False) -> Iterator[str]:
    """Full names of what a node imports: in functions and for type checkers too, unless `at_load` alone."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                yield from (alias.name for alias in child.names)
            case ast.ImportFrom():
                assert child.level == 0, "relative imports hide the arrows"
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() if at_load:
                continue
            case ast.If() if at_load and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            case _:
                yield from imported_in(child, at_load=at_load)


@cache
def imports(module: str, *, at_load: bool = False) -> frozenset[str]:
    return frozenset(imported_in(ast.parse(modules()[module].read_text()), at_load=at_load))


def ours(imported: str) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    parts = imported.split(".")
    return next(
        (name for n in (len(parts), len(parts) - 1) if (name := ".".join(parts[:n])) in modules()), None
    )


def file_arrows() -> set[Arrow]:
    return {
        (module, found)
        for module in modules()
        for imported in imports(module)
        if (found := ours(imported)) and found != module
    }


def folder(module: str) -> str:
    return ".".join(modules()[module].parent.relative_to(ROOT).parts)


def circle(arrows: Iterable[Arrow]) -> list[str]:
    """The stations of one circle that the arrows go in; empty when they go in none."""
    graph: dict[str, set[str]] = defaultdict(set)
    for tail, head in arrows:
        graph[tail].add(head)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_point_from_app_to_worker_to_models_and_never_back() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in modules()
        for imported in imports(module)
        if (package := imported.split(".")[0]) in {*PACKAGES, "tests", "benchmarks"}
        and package not in MAY_IMPORT[module.split(".")[0]]
    ]
    assert not wrong


def test_torch_and_what_brings_it_are_imported_in_models_inference_alone() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in modules()
        if not module.startswith(INFERENCE)
        for imported in imports(module)
        if imported.split(".")[0] in HEAVY
    ]
    assert not wrong


def test_models_inference_is_imported_only_by_those_who_start_an_engine_and_only_then() -> None:
    outside = [module for module in modules() if not module.startswith(INFERENCE)]

    def reach(*, at_load: bool) -> set[str]:
        return {
            module
            for module in outside
            if any(name.startswith(f"{INFERENCE}.") for name in imports(module, at_load=at_load))
        }

    assert reach(at_load=True) == set()
    assert reach(at_load=False) == STARTERS


@pytest.mark.parametrize(
    "module", ["app.main", "app.cli", "models.canny", "worker.host.supervisor", "worker.runtime.process"]
)
def test_module_is_imported_without_torch(module: str) -> None:
    program = f"import {module}, sys; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == ""


def test_models_import_at_the_top_of_a_file_what_is_not_optional() -> None:
    wrong = [
        f"{module} imports {imported} late"
        for module in modules()
        if module.startswith("models.")
        for imported in imports(module) - imports(module, at_load=True)
        if not f"{imported}.".startswith(LATE_IN_MODELS)
    ]
    assert not wrong


def test_each_floor_of_models_inference_imports_from_those_below_it() -> None:
    def floor(module: str) -> int:
        name = folder(module).removeprefix(INFERENCE).strip(".")
        return FLOORS.index(name) if name else len(FLOORS)

    inside = [arrow for arrow in file_arrows() if all(end.startswith(INFERENCE) for end in arrow)]
    assert inside
    assert [f"{tail} imports {head}" for tail, head in inside if floor(head) > floor(tail)] == []


def test_files_do_not_import_in_circles() -> None:
    assert circle(file_arrows()) == []


@pytest.mark.parametrize("package", ["worker", "models"])
def test_folders_inside_a_package_do_not_import_in_circles(package: str) -> None:
    arrows = {(folder(tail), folder(head)) for tail, head in file_arrows()}
    inside = {
        (tail, head)
        for tail, head in arrows
        if tail != head and all(end.startswith(f"{package}.") for end in (tail, head))
    }
    assert inside
    assert circle(inside) == []


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    folders = (*PACKAGES, "tests", "benchmarks", "examples")
    lines = {
        str(path.relative_to(ROOT)): path.read_text().count("\n")
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
