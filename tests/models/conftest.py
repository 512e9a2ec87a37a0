"""What the model layer's tests share: a tiny untrained model, written once."""

import os
from pathlib import Path

import pytest

# Read by torch at its import: threads that wait for one another on a busy machine take longer than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.inference.untrained import write_untrained

    return write_untrained(tmp_path_factory.mktemp("models") / "tiny")
