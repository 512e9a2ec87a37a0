"""How `make test` hands the tests to its processes."""

import os
import re
import subprocess
import sys
from pathlib import Path


def test_tests_that_share_a_server_run_in_one_process() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    two = ["tests/e2e/test_serve.py", "-k", "port_that_is_taken or setting_that_is_none"]
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", *two]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=clean, capture_output=True, text=True, check=True)
    one, other = re.findall(r"^\[(gw\d)\].* PASSED ", done.stdout, re.MULTILINE)
    assert one == other
