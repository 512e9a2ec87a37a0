"""What a compiled decoder gives beside what it gave before, by PyTorch's tracing alone, with faulty code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import ModelError
from models.inference.denoise.paths import COMPILED
from models.inference.engine import Engine
from tests.models.inference.test_engine import settings_for
from tests.support.kept_code import is_decoder


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.compiler.set_default_backend("inductor")
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


@torch.no_grad()
def test_picture_that_is_another_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    def compile(graph: Any, _: Any, **__: Any) -> Any:
        if not is_decoder(graph):
            return graph
        return lambda *inputs: [1.1 * output for output in graph(*inputs)]

    torch.compiler.set_default_backend(compile)
    model = Engine.load(settings_for(tiny_model, tmp_path))._model
    model._compiles_decoder = True
    with pytest.raises(ModelError, match=r"A picture of compiled is \S+e-01 away from one of eager\."):
        model.use(COMPILED)
