"""Compiled blocks, by PyTorch's tracing alone: its code generator takes minutes on a small machine."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch._inductor.runtime.runtime_utils import cache_dir

from benchmarks.gpu.models import TINY
from benchmarks.random_models import random_transformer, random_vae
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.compilation import compile_blocks, compile_decoder, keep_code_in, warm_up
from models.inference.denoise.paths import COMPILED, EAGER, GRAPHS
from models.inference.denoise.rounding import EightBits
from models.inference.denoise.transformer import condition, predict
from models.inference.device import step_graphs
from models.inference.device.placement import Placement
from models.inference.engine import Engine
from models.inference.lora.stack import LoraStack
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


class Rerun:
    """Stands for a CUDA graph of compiled blocks: what it gives lies where it lay the first time."""

    def __init__(self, run: Callable[[], torch.Tensor]) -> None:
        self.run, self.output, self.replays = run, run(), 0

    def replay(self) -> None:
        self.output.copy_(self.run())
        self.replays += 1

    def pool(self) -> None: ...


def test_compiled_blocks_make_the_same_pictures_and_nothing_is_compiled_after_the_warm_up(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    jobs = JOB, controlled, wide, wordy
    made = [draw(engine, job) for job in jobs]
    for one, job in zip(made, jobs, strict=True):
        assert near(one, draw(plain, job))
    styled = JOB.model_copy(update={"loras": (write_lora(tmp_path),)})
    assert near(draw(engine, styled), draw(plain, styled))
    assert not near(draw(engine, styled), made[0])
    assert np.array_equal(draw(engine, JOB).images[0], made[0].images[0])
    assert graphs() == warm

    captured: list[Rerun] = []

    def capture(run: Callable[[], torch.Tensor], *_: object, **__: object) -> tuple[Rerun, torch.Tensor]:
        captured.append(Rerun(run))
        return captured[-1], captured[-1].output

    monkeypatch.setattr(step_graphs, "capture", capture)
    monkeypatch.setattr(step_graphs, "USES", 0)
    with torch.no_grad():
        engine._model.use(GRAPHS)
    for one, job in zip(made, jobs, strict=True):
        again = draw(engine, job)
        assert again.facts.fast_path == "compiled with graphs"
        assert np.array_equal(again.images[0], one.images[0])
    assert [graph.replays for graph in captured] == [2, 2, 2, 1, 1, 2, 2]
    assert graphs() == warm

    # Back to blocks that run as they are written.
    engine._model.use(EAGER)
    assert np.array_equal(draw(engine, JOB).images[0], draw(plain, JOB).images[0])
    assert not engine._model.is_compiled


def lora_of(folder: Path, **ranks: int) -> LoraFile:
    """A LoRA of these layers of the first two blocks."""
    random = torch.Generator().manual_seed(3)
    tensors = {}
    for (name, rank), layer in product(ranks.items(), (0, 1)):
        width, wide = {"w2": (64, 170), "w3": (170, 64)}.get(name, (64, 64))
        part = "feed_forward" if name.startswith("w") else "attention"
        for factor, shape in {"A": (rank, wide), "B": (width, rank)}.items():
            key = f"transformer.layers.{layer}.{part}.{name}.lora_{factor}.weight"
            tensors[key] = torch.randn(shape, generator=random) / rank
    path = folder / f"{'-'.join(ranks)}.safetensors"
    save_file(tensors, path)
    return LoraFile(name="style", path=path, scale=1.0, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_loras_beside_weights_that_stream_have_code_for_every_rank_and_set_of_layers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = Placement("cpu", "float32", "streamed", held_bytes=200_000)
    monkeypatch.setattr("models.inference.device.loaded_model.plan", lambda *_: placement)
    plain = Engine.load(settings_for(tiny_model, tmp_path / "plain"))
    engine = compiled(tiny_model, tmp_path / "compiled")
    warm = graphs()
    # Six without LoRAs, as where weights stay, and one for all LoRAs.
    assert warm == 7
    # Else what has no code would run as it is written, and nobody would know.
    torch.compiler.set_stance("fail_on_recompile")
    before = draw(engine, JOB)
    for ranks in ({"to_q": 1}, {"w2": 4, "to_v": 64}, {"w3": 7}):
        styled = JOB.model_copy(update={"loras": (lora_of(tmp_path, **ranks),)})
        made = draw(engine, styled)
        assert made.facts.fast_path == "compiled"
        assert near(made, draw(plain, styled))
        assert not near(made, before)
    # A path that is taken while the last request's LoRAs are there has the same code.
    with torch.no_grad():
        engine._model.use(COMPILED)
    torch.compiler.set_stance("fail_on_recompile")
    assert np.array_equal(draw(engine, styled).images[0], made.images[0])
    assert np.array_equal(draw(engine, JOB).images[0], before.images[0])
    assert (graphs(), engine.path.name) == (warm, "compiled")


@pytest.mark.parametrize("eight_bits", ["int8", "fp8"])
@torch.no_grad()
def test_weights_in_eight_bits_have_one_code_for_all_sizes_and_one_for_all_loras_beside_them(
    eight_bits: EightBits, tmp_path: Path
) -> None:
    counters.clear()
    transformer = use_own_blocks(random_transformer(TINY.transformer, torch.float32, "cpu"))
    loras = LoraStack(round_blocks(transformer, eight_bits))
    sets = [[], [lora_of(tmp_path, to_q=1)], [lora_of(tmp_path, w3=64, to_v=4)]]
    random = torch.Generator().manual_seed(4)
    # On a processor the tokens of the second go through int8 in two parts, where they are not compiled.
    latents = [torch.randn(1, 16, *size, generator=random) for size in ((16, 16), (40, 48))]
    embeddings = torch.randn(9, transformer.config.cap_feat_dim, generator=random)

    def steps() -> list[torch.Tensor]:
        made = []
        for chosen, each in product(sets, latents):
            loras.apply(chosen)
            conditioning = condition(transformer, embeddings, *each.shape[2:])
            made.append(predict(transformer, conditioning, each, 0.5))
        return made

    expected = steps()
    compile_blocks(transformer, compiled=True)
    warm_up(transformer, None, torch.device("cpu"))
    # The first and the last of a stack, without LoRAs and with them.
    assert graphs() == 4
    torch.compiler.set_stance("fail_on_recompile")
    for one, other in zip(steps(), expected, strict=True):
        assert (one - other).norm() < 2e-2 * other.norm()


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


def test_code_is_kept_where_the_next_process_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "theirs"))
    keep_code_in(tmp_path)
    assert cache_dir() == str(tmp_path / "theirs")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    keep_code_in(tmp_path)
    assert cache_dir() == str(tmp_path)


def test_code_is_the_same_in_every_process_for_each_piece_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def compile(graph: Any, *_: Any, config_patches: dict[str, Any], **__: Any) -> Any:
        with inductor.patch(config_patches):
            told.append(inductor.deterministic)
        return graph

    torch.compiler.set_default_backend("inductor")
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compile)
    config = {**TINY.transformer, "n_layers": 1, "n_refiner_layers": 1}
    transformer = use_own_blocks(random_transformer(config, torch.float32, "cpu"))
    vae = random_vae((8, 8, 8, 8), torch.float32, "cpu")
    compile_blocks(transformer, compiled=True)
    compile_decoder(vae, compiled=True)
    warm_up(transformer, None, torch.device("cpu"), vae)
    assert told == 2 * [True]
