"""`make mutants`: what it breaks, and that it tells what no test noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import MODULES, ROOT, lua_mutants, mutants_of, python_mutants

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
import mutants
mutants.ROOT, mutants.MODULES, mutants.IMPORTED_BEFORE = Path.cwd(), {"subject.py": ("test_subject.py",)}, []
mutants.ACCEPTED = Path("accepted.txt")
sys.exit(mutants.main())
"""


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_their_tests_are_where_the_table_says(module: str) -> None:
    assert mutants_of(module)
    assert [test for test in MODULES[module] if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("return a < b", ["return a <= b"]),
        ("return a and (b or c)", ["return a or (b or c)", "return a and (b and c)"]),
        ("return not any(a)", ["return any(a)", "return not all(a)"]),
        ("return (a - 1) * b", ["return (a - 1) / b", "return (a + 1) * b", "return (a - 2) * b"]),
        ("return b if a else c", ["return b if (not a) else c"]),
        ("a.send(b)", ["pass"]),
        ("a.sent = True", ["pass", "a.sent = False"]),
        ("return 'a < b'", []),
    ],
)
def test_each_change_of_a_line_is_made_by_itself(line: str, changed: list[str]) -> None:
    source = f"LIMIT = 3\n\n\ndef work(a, b, c):\n    {line}\n"
    mutants = list(python_mutants("subject.py", source))
    assert sorted(mutant.text for mutant in mutants) == sorted(source.replace(line, each) for each in changed)
    assert {mutant.line for mutant in mutants} <= {5}


def test_scripts_are_broken_too_but_not_their_comments_and_texts() -> None:
    source = "if a == 1 then return {'this and that'} end -- a and b\ncount(1, 'submits')\n"
    assert [mutant.change for mutant in lua_mutants("code.lua", source)] == [
        "if a == 1 then return {'this and that'} end => if a ~= 1 then return {'this and that'} end",
        "count(1, 'submits') =>",
    ]


def test_change_that_no_test_notices_is_told_unless_it_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "subject.py").write_text(
        "def larger(a, b):\n    return a > b\n\n\ndef known(a):\n    return a == 7\n\n\n"
        "def unknown(a):\n    return a > 3\n"
    )
    (tmp_path / "test_subject.py").write_text(
        "from subject import *\n\n\ndef test():\n    assert larger(2, 1) and known(7) > known(8)\n"
    )
    (tmp_path / "accepted.txt").write_text(
        "subject.py: return a > 3 => return a >= 3\nsubject.py: return a > 3 => return a > 4\n"
        "# why\nsubject.py: old => new\n"
    )
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    command = [sys.executable, "-c", RUN, str(ROOT / "tests")]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert [line for line in ran.stdout.splitlines() if line] == [
        "accepted.txt has what is no change any more: subject.py: old => new",
        *("subject.py:2", "subject.py: return a > b => return a >= b", "1 survivors"),
    ]
