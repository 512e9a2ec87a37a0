"""Modules become one script that does what they did; a form that it does not know is told of."""

import shutil
import subprocess

import pytest

from app.routes.page_script import linked

MODULES = {
    "js/main.js": (
        'import { twice, Box as Crate } from "./parts/work.js";\nimport "./parts/first.js";\n'
        "const own = 1;\nconsole.log(twice(20) + own, new Crate().size);\n"
    ),
    "js/parts/work.js": (
        'import {\n  ONE,\n} from "../one.js";\nconst own = 2;\n'
        "export function twice(value) {\n  return value * own;\n}\nexport class Box {\n  size = ONE;\n}\n"
    ),
    "js/parts/first.js": 'console.log("first");\n',
    "js/one.js": "export const ONE = 7;\n",
}


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on the PATH")
def test_linked_modules_do_what_they_did_each_with_its_own_names() -> None:
    script = linked(MODULES, "js/main.js")
    done = subprocess.run(
        ["node", "--input-type=module"], input=script, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "first\n41 7\n"


@pytest.mark.parametrize(
    "line",
    [
        "export default 1;\n",
        'import * as all from "./one.js";\n',
        'await import("./one.js");\n',
        "export let a;\n",
    ],
)
def test_form_that_is_not_known_is_told_of(line: str) -> None:
    with pytest.raises(ValueError, match=r"js/main\.js"):
        linked(MODULES | {"js/main.js": line}, "js/main.js")


def test_circle_of_imports_is_told_of() -> None:
    with pytest.raises(ValueError, match="a circle"):
        linked(MODULES | {"js/one.js": 'import { a } from "./main.js";\n'}, "js/main.js")
