"""Compiled blocks, by PyTorch's tracing alone: its code generator takes minutes on a small machine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.runtime.runtime_utils import cache_dir

from benchmarks.gpu.models import TINY
from benchmarks.random_models import random_transformer, random_vae
from models.inference.denoise.blocks import use_own_blocks
from models.inference.denoise.compilation import compile_decoder, keep_code_in, warm_up
from models.inference.denoise.paths import COMPILED, EAGER
from models.inference.engine import Engine
from models.job import Generated, Job, LoraFile
from tests.models.inference.test_engine import settings_for, write_lora

JOB = Job(prompt="a red ball", width=64, height=64, num_inference_steps=2, seed=1)


@pytest.fixture(autouse=True)
def tracing_only() -> Iterator[None]:
    torch.compiler.set_default_backend("eager")
    yield
    torch.compiler.set_default_backend("inductor")
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


def compiled(tiny_model: Path, tmp_path: Path) -> Engine:
    counters.clear()
    engine = Engine.load(settings_for(tiny_model, tmp_path))
    with torch.no_grad():
        engine._model.use(COMPILED)
    return engine


def draw(engine: Engine, job: Job) -> Generated:
    control = np.full((job.height, job.width, 3), 128, np.uint8) if job.controlnet else None
    return engine.generate(job, control, lambda step: None)


def graphs() -> int:
    """Compiled so far, of one block each."""
    return int(counters["stats"]["unique_graphs"])


def near(one: Generated, other: Generated) -> bool:
    return int(np.abs(one.images[0].astype(int) - other.images[0]).max()) <= 1


def test_compiled_blocks_make_the_same_picture_and_nothing_is_compiled_after_the_warm_up(
    tiny_model: Path, tmp_path: Path
) -> None:
    plain = Engine.load(settings_for(tiny_model, tmp_path / "plain"))
    engine = compiled(tiny_model, tmp_path / "compiled")
    warm = graphs()
    # Four kinds of layers: each may be the first of a stack, and may give its tokens whole; the first control
    # block and those after it.
    assert warm == 6
    controlled = JOB.model_copy(
        update={"controlnet": tiny_model / "controlnet.safetensors", "control_scale": 0.8, "control_end": 0.5}
    )
    wide = JOB.model_copy(update={"width": 96})
    wordy = JOB.model_copy(update={"prompt": "a red ball " * 60})
    for job in (JOB, controlled, wide, wordy):
        assert near(draw(engine, job), draw(plain, job))
    assert graphs() == warm


def test_lora_changes_a_compiled_picture_and_leaves_no_trace(tiny_model: Path, tmp_path: Path) -> None:
    plain = Engine.load(settings_for(tiny_model, tmp_path / "plain"))
    engine = compiled(tiny_model, tmp_path / "compiled")
    warm, before = graphs(), draw(engine, JOB)
    lora: LoraFile = write_lora(tmp_path)
    styled = JOB.model_copy(update={"loras": (lora,)})
    assert near(draw(engine, styled), draw(plain, styled))
    assert not near(draw(engine, styled), before)
    assert np.array_equal(draw(engine, JOB).images[0], before.images[0])
    assert graphs() == warm


def test_decoder_has_one_code_for_pictures_of_every_size_and_makes_the_same() -> None:
    counters.clear()
    vae = random_vae((8, 8, 8, 8), torch.float32, "cpu")
    latents = [torch.randn(1, 16, *size) for size in ((64, 64), (48, 96))]
    with torch.no_grad():
        plain = [vae.decode(each).sample for each in latents]
        compile_decoder(vae, compiled=True)
        transformer = use_own_blocks(random_transformer(TINY.transformer, torch.float32, "cpu"))
        warm_up(transformer, None, torch.device("cpu"), vae)
        assert graphs() == 1
        torch.testing.assert_close([vae.decode(each).sample for each in latents], plain)
        # What is not compiled runs as it is written.
        vae.decode(latents[0].mT)
    assert graphs() == 1


def test_compiled_model_runs_as_it_is_written_again(tiny_model: Path, tmp_path: Path) -> None:
    engine = compiled(tiny_model, tmp_path / "compiled")
    engine._model.use(EAGER)
    plain = Engine.load(settings_for(tiny_model, tmp_path / "plain"))
    assert np.array_equal(draw(engine, JOB).images[0], draw(plain, JOB).images[0])
    assert not engine._model.is_compiled


def test_code_is_kept_where_the_next_process_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "theirs"))
    keep_code_in(tmp_path)
    assert cache_dir() == str(tmp_path / "theirs")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    keep_code_in(tmp_path)
    assert cache_dir() == str(tmp_path)
