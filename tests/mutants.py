"""Breaks the code, one line at a time, and runs the tests that should notice: `make mutants`.

Each change is made in a copy of the tree, by one of a few operators: another comparison, a condition turned
round, a number one larger, a call left out. A change that no test notices is a survivor: it is printed, and
the exit status is 1. Those that make no difference, or none that a test should hold, stand in mutants.txt.
"""

import argparse
import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ACCEPTED = Path(__file__).with_suffix(".txt")

GUARD = ("tests/worker/inputs/test_guard.py", "tests/worker/inputs/test_fetch.py")
FETCH = ("tests/worker/inputs/test_fetch.py", "tests/worker/inputs/test_image_cache.py")
WEBHOOKS = ("tests/app/test_webhooks.py", "tests/contract/test_webhooks.py")
CONSUMER = tuple(f"tests/worker/runtime/test_{name}.py" for name in ("consumer", "leftovers", "workers"))
TASKS = ("tests/worker/stages/test_stages.py", *CONSUMER)
QUEUE = tuple(
    f"tests/worker/queue/test_{name}.py"
    for name in [
        "record",
        "scripts",
        "work_queue",
        "reaping",
        "declare_dead",
        "limits",
        "fair_share",
        "io_share",
        "affinity",
        "in_line",
        "clock",
        "told",
        "share_of_disk",
    ]
)
MODULES = {
    "worker/inputs/guard.py": GUARD,
    "worker/inputs/fetch.py": FETCH,
    "worker/queue/record.py": (*QUEUE, *WEBHOOKS),
    "worker/queue/scripts.py": (*QUEUE, *WEBHOOKS),
    "worker/queue/work_queue.py": (*QUEUE, *WEBHOOKS),
    "worker/queue/lua": (*QUEUE, *WEBHOOKS, "tests/contract/test_idempotency.py"),
    "worker/runtime/consumer.py": CONSUMER,
    "worker/stages/picture.py": TASKS,
    "worker/stages/control_map.py": TASKS,
    "worker/stages/expansion.py": TASKS,
    "worker/webhooks.py": WEBHOOKS,
    "app/webhooks.py": WEBHOOKS,
    "app/auth.py": ("tests/app/test_auth.py",),
    "app/http/trusted_proxy.py": ("tests/app/test_links.py",),
    "app/http/cors.py": ("tests/app/test_cors.py",),
    "app/http/plain_path.py": ("tests/contract/test_bodies.py",),
    "app/prechecks.py": ("tests/contract/test_prechecks.py",),
}
"""What is broken, a file or a folder of Lua scripts, and the tests that should notice."""

IMPORTED_BEFORE = [
    "fastapi",
    "httpx",
    "huggingface_hub",
    "hypothesis",
    "numpy",
    "PIL.Image",
    "pydantic_settings",
]
IMPORTED_BEFORE += ["redis.asyncio", "rq", "uvicorn"]
"""Packages of others are imported once, by the process from which each run is forked."""

LEAST_SECONDS = 20.0
"""A run that takes longer, and five times as long as with nothing broken, hangs; that is noticed too."""

COMPARISONS = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}
FUNCTIONS = {"any": "all", "all": "any", "min": "max", "max": "min"}
ATOMS = ast.Name | ast.Attribute | ast.Call | ast.Constant | ast.Subscript

LUA = {
    " == ": " ~= ", " ~= ": " == ", " <= ": " < ", " < ": " <= ", " >= ": " > ", " > ": " >= ",
    " and ": " or ", " or ": " and ", r"\bnot ": "", r" \+ ": " - ", " - ": " + ",
    r"math\.max": "math.min", r"math\.min": "math.max",
    r"^ *[\w.]+\(.*\)$": "", r"(?<=\S )redis\.call\('(?:ZREM|DEL|HDEL|PUBLISH)'[^()]*\)": "0",
    r", '[NPE]X', (?:[^()]|\([^()]*\))+(?=\))": "", r"'(?:NX|XX)', ": "",
}  # fmt: skip
"""Patterns in a line of Lua, and what is put in their place."""


class Mutant(NamedTuple):
    file: str
    line: int
    change: str
    """The line before and after, without the white space around it."""
    text: str
    """The whole file, broken."""

    @property
    def name(self) -> str:
        """What it is called in mutants.txt; the same wherever the file and the line are moved to."""
        return f"{Path(self.file).name}: {self.change}"


def edits(node: ast.AST, source: str) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """What may be put in place of a part of the program, one change each time."""

    def text(part: ast.AST) -> str:
        # The segment is without the brackets around it.
        segment = ast.get_source_segment(source, part) or ""
        return segment if isinstance(part, ATOMS) else f"({segment})"

    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in COMPARISONS:
            yield node, f"{text(left)} {COMPARISONS[type(operator)]} {text(right)}"
        case ast.BoolOp(operator, values):
            yield node, (" or " if isinstance(operator, ast.And) else " and ").join(map(text, values))
        case ast.UnaryOp(ast.Not(), operand):
            yield node, text(operand)
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC:
            yield node, f"{text(left)} {ARITHMETIC[type(operator)]} {text(right)}"
        case ast.Call(ast.Name(name) as function) if name in FUNCTIONS:
            yield function, FUNCTIONS[name]
        case ast.Constant(bool(value)):
            yield node, str(not value)
        case ast.Constant(int() | float() as value):
            yield node, str(value + 1 if isinstance(value, int) else 2 * value + 1)
        case ast.If(test) | ast.IfExp(test) if isinstance(test, ATOMS | ast.NamedExpr):
            yield test, f"(not {text(test)})"
        case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign():
            yield node, "pass"
        case ast.Assign([ast.Attribute() | ast.Subscript()], value) if not isinstance(value, ast.Name):
            yield node, "pass"


def python_mutants(file: str, source: str) -> Iterator[Mutant]:
    """Changes in the bodies of functions; a constant of a module is a choice, which no test repeats."""
    functions = [
        each
        for each in ast.walk(ast.parse(source))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    # A function within another is walked twice.
    nodes = {node: None for each in functions for part in each.body for node in ast.walk(part)}
    lines = source.encode().splitlines(keepends=True)
    for node in nodes:
        for part, text in edits(node, source):
            first, last = part.lineno - 1, part.end_lineno or part.lineno
            before = b"".join(lines[first:last])
            after = lines[first][: part.col_offset] + text.encode() + lines[last - 1][part.end_col_offset :]
            whole = b"".join([*lines[:first], after, *lines[last:]]).decode()
            change = " => ".join(" ".join(each.decode().split()) for each in (before, after))
            yield Mutant(file, part.lineno, change, whole)


def lua_mutants(file: str, source: str) -> Iterator[Mutant]:
    lines = source.splitlines(keepends=True)
    for place, line in enumerate(lines):
        code = line.partition("--")[0].rstrip()
        for pattern, text in LUA.items():
            for found in re.finditer(pattern, code):
                if code[: found.start()].count("'") % 2:
                    continue  # in a text
                after = code[: found.start()] + text + code[found.end() :]
                whole = "".join([*lines[:place], after + "\n", *lines[place + 1 :]])
                yield Mutant(file, place + 1, f"{code.strip()} => {after.strip()}".strip(), whole)


def mutants_of(module: str) -> list[Mutant]:
    path = ROOT / module
    if path.is_dir():
        scripts = sorted(path.glob("*.lua"))
        return [
            each for file in scripts for each in lua_mutants(str(file.relative_to(ROOT)), file.read_text())
        ]
    return list(python_mutants(module, path.read_text()))


def run_tests(copy: Path, tests: tuple[str, ...], seconds: float) -> int:
    os.setsid()
    os.chdir(copy)
    sys.path[0] = os.environ["PYTHONPATH"] = str(copy)
    with (copy / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    # The plugins among what is imported already are not rewritten.
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider", "-p", "no:xdist")
    return pytest.main(["-x", "-q", *quiet, "-o", f"timeout={seconds:.0f}", *tests])


def passes(copy: Path, tests: tuple[str, ...], seconds: float) -> bool:
    """Whether the tests pass in the copy, in a process forked from this one."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = run_tests(copy, tests, seconds)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + seconds + LEAST_SECONDS
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def survivors(copy: Path, module: str, mutants: list[Mutant]) -> Iterator[Mutant]:
    tests = MODULES[module]
    started = time.monotonic()
    if not passes(copy, tests, 600):
        raise SystemExit(f"With nothing broken, tests of {module} fail:\n{(copy / 'output').read_text()}")
    seconds = max(LEAST_SECONDS, 5 * (time.monotonic() - started))
    for number, mutant in enumerate(mutants, 1):
        print(f"\r{module} {number}/{len(mutants)} ", end="", file=sys.stderr, flush=True)
        file = copy / mutant.file
        whole = file.read_text()
        file.write_text(mutant.text)
        # Its bytecode goes by the second and the length, which two changes may have in common.
        for kept in file.parent.glob(f"__pycache__/{file.stem}.*"):
            kept.unlink()
        if passes(copy, tests, seconds):
            yield mutant
        file.write_text(whole)


def copy_tree(copy: Path) -> None:
    """Copies what git follows or would follow, changes that are not committed included."""
    list_files = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        list_files, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--list", action="store_true", help="only print the changes")
    options.add_argument("files", nargs="*", help="parts of paths; every module unless said")
    asked = options.parse_args()
    accepted = {line for line in ACCEPTED.read_text().splitlines() if line and not line.startswith("#")}
    gone = accepted - {mutant.name for module in MODULES for mutant in mutants_of(module)}
    for name in sorted(gone):
        print(f"{ACCEPTED.name} has what is no change any more: {name}")
    found = 0
    with tempfile.TemporaryDirectory(prefix="zturbo-mutants-") as folder:
        copy = Path(folder)
        copy_tree(copy)
        for package in IMPORTED_BEFORE:
            import_module(package)
        for module in MODULES:
            mutants = [
                mutant
                for mutant in mutants_of(module)
                if mutant.name not in accepted
                and (not asked.files or any(part in mutant.file for part in asked.files))
            ]
            for mutant in mutants if asked.list or not mutants else survivors(copy, module, mutants):
                found += 1
                print(f"\r{mutant.file}:{mutant.line}\n{mutant.name}", flush=True)
    print(f"{found} {'changes' if asked.list else 'survivors'}")
    return 1 if gone or (found and not asked.list) else 0


if __name__ == "__main__":
    sys.exit(main())
