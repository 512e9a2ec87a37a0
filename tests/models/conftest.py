"""What the model layer's tests share: the demo model, written once."""

import os
from pathlib import Path

import pytest

# Read by torch at its import: threads that wait for one another on a busy machine take longer than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.demo import write_demo

    return write_demo(tmp_path_factory.mktemp("models") / "demo")
