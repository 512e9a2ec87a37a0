"""An engine with the tiny untrained model, a job for it, and the control picture that goes with the job."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from models.inference.engine import Engine
from models.inference.loading.tensors import Weights
from models.job import Job, Pixels
from tests.models.inference.test_engine import SIZE, settings_for


@pytest.fixture(scope="module")
def engine(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(settings_for(tiny_model, tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def control() -> Pixels:
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[32:96, 32:96] = 255
    return picture


@pytest.fixture
def job(tiny_model: Path) -> Job:
    return Job(
        prompt="a red ball on a table",
        width=SIZE,
        height=SIZE,
        num_inference_steps=4,
        seed=1,
        control_scale=0.9,
        control_end=0.5,
        controlnet=tiny_model / "controlnet.safetensors",
        controlnet_name="its own",
    )


@pytest.fixture(scope="module")
def half_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model stored in bfloat16."""
    folder = tmp_path_factory.mktemp("half") / "model"
    for path in tiny_model.rglob("*"):
        target = folder / path.relative_to(tiny_model)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".safetensors":
                weights = Weights([path])
                tensors = {name: weights.read(name).bfloat16() for name in weights.shapes()}
                save_file(tensors, target, {"format": "pt"})
            else:
                target.write_bytes(path.read_bytes())
    return folder
