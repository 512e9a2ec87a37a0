"""What the model layer's tests share: the demo model, written once."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.demo import write_demo

    return write_demo(tmp_path_factory.mktemp("models") / "demo")
