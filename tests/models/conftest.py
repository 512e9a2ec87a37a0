"""What the model layer's tests share: a tiny untrained model, written once."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.inference.untrained import write_untrained

    return write_untrained(tmp_path_factory.mktemp("models") / "tiny")
