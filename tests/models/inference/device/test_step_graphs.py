"""Captured steps through the real pipeline, on a CPU: a tape stands for a CUDA graph.

It has the operations of one run with their numbers, and does them again at the addresses that they had: no
line of Python runs, and weights that have moved are read where they were.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.gpu.models import TINY
from benchmarks.random_models import random_transformer
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.modulation import modulate
from models.inference.denoise.paths import EAGER
from models.inference.denoise.transformer import condition, predict
from models.inference.device import step_graphs
from models.inference.device.capture import capture
from models.inference.device.step_graphs import StepGraphs
from models.inference.engine import Engine
from models.inference.lora.stack import LoraStack
from models.job import Generated, Job
from tests.models.inference.denoise.test_compilation import lora_of
from tests.models.inference.test_engine import settings_for, write_lora

JOB = Job(prompt="a red ball", width=64, height=64, num_inference_steps=4, seed=1)
CAPTURED = EAGER._replace(captured=True)
"""A tape cannot look into compiled blocks."""


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.replays = 0
        self._done: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        # Tensors of their own at the same addresses: what is pointed elsewhere later is not followed.
        self._done.append((func, *tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}, made))))
        return made

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, made in self._done:
            again = func(*args, **kwargs)
            if not any(returned.alias_info for returned in func._schema.returns):
                for there, value in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(there, Tensor):
                        there.copy_(value)

    def pool(self) -> None: ...


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """All that were captured."""
    captured: list[Tape] = []

    def capture(run: Callable[[], Tensor], device: torch.device, **_: object) -> tuple[Tape, Tensor]:
        with Tape() as tape:
            output = run()
        captured.append(tape)
        return tape, output

    monkeypatch.setattr(step_graphs, "capture", capture)
    return captured


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(settings_for(tiny_model, tmp_path_factory.mktemp("plain")))


@pytest.fixture
def engine(
    tiny_model: Path, tmp_path: Path, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """It captures what comes for the second time."""
    monkeypatch.setattr(step_graphs, "USES", 1)
    engine = Engine.load(settings_for(tiny_model, tmp_path))
    with torch.no_grad():
        engine._model.use(CAPTURED)
    tapes.clear()
    yield engine
    torch.compiler.set_stance("default")


def graphs_of(engine: Engine) -> StepGraphs:
    graphs = engine._model._graphs
    assert graphs is not None
    return graphs


def draw(engine: Engine, job: Job) -> Generated:
    control = np.full((job.height, job.width, 3), 128, np.uint8) if job.controlnet else None
    return engine.generate(job, control, lambda step: None)


def same(one: Generated, other: Generated) -> bool:
    return all(map(np.array_equal, one.images, other.images))


def test_pictures_are_the_same_with_graphs_of_every_kind_of_step(
    engine: Engine, plain: Engine, tiny_model: Path, tapes: list[Tape]
) -> None:
    controlled = JOB.model_copy(
        update={"controlnet": tiny_model / "controlnet.safetensors", "control_scale": 0.8, "control_end": 0.5}
    )
    kinds = [
        (JOB, 1, 3),
        (JOB.model_copy(update={"prompt": "a blue cube", "seed": 2}), 0, 4),
        (JOB.model_copy(update={"width": 96}), 1, 3),
        (JOB.model_copy(update={"prompt": "a red ball " * 60}), 1, 3),
        (JOB.model_copy(update={"num_images": 2}), 1, 3),
        # Two steps with the branch and two without, whose timesteps have numbers for the branch too.
        (controlled, 2, 2),
        (controlled.model_copy(update={"control_scale": 0.4}), 1, 3),
        (JOB, 0, 4),
    ]
    for job, captured, replayed in kinds:
        before = len(tapes), sum(tape.replays for tape in tapes)
        assert same(draw(engine, job), draw(plain, job))
        assert (len(tapes), sum(tape.replays for tape in tapes)) == (
            before[0] + captured,
            before[1] + replayed,
        )


def test_loras_that_are_merged_need_no_other_graph(
    engine: Engine, plain: Engine, tmp_path: Path, tapes: list[Tape]
) -> None:
    before = draw(engine, JOB)
    styled = JOB.model_copy(update={"loras": (write_lora(tmp_path),)})
    made = draw(engine, styled)
    assert same(made, draw(plain, styled))
    assert not same(made, before)
    assert same(draw(engine, JOB), before)
    assert len(tapes) == 1


@torch.no_grad()
def test_loras_beside_weights_and_weights_that_have_moved_have_graphs_of_their_own(
    tmp_path: Path, tapes: list[Tape]
) -> None:
    transformer = use_own_blocks(random_transformer(TINY.transformer, torch.float32, "cpu"))
    stack = LoraStack(round_blocks(transformer, "fp8"))
    graphs = StepGraphs(torch.device("cpu"), uses=0)
    latents = torch.randn(1, 16, 16, 16)
    conditioning = condition(transformer, torch.randn(9, transformer.config.cap_feat_dim), 16, 16)
    (moment,) = modulate(transformer, None, torch.tensor([0.5]))

    def step() -> Tensor:
        expected = predict(transformer, conditioning, latents, moment)
        found = graphs(transformer, conditioning, latents, moment)
        assert found is not None
        assert torch.equal(found, expected)
        return found

    answers = []
    for loras, captured in (
        ([], 1),
        ([lora_of(tmp_path, to_q=1)], 2),
        ([lora_of(tmp_path, w3=64)], 3),
        ([], 3),
    ):
        stack.apply(loras)
        answers.append(step())
        assert len(tapes) == captured
    assert not torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[3])

    weight = transformer.layers[0].attention.to_q.weight
    old, weight.data = weight.data, weight.data.clone()
    old.zero_()
    assert torch.equal(step(), answers[0])
    assert len(tapes) == 4


def test_cancelled_picture_leaves_the_graphs_sound(engine: Engine, plain: Engine) -> None:
    def cancel(step: Any) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(JOB, None, cancel)
    assert same(draw(engine, JOB), draw(plain, JOB))


@pytest.mark.parametrize("when", ["captured", "run"])
def test_graph_that_fails_costs_no_picture_and_there_are_none_from_then_on(
    when: str,
    engine: Engine,
    plain: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted.\nand more")

    if when == "captured":
        monkeypatch.setattr(step_graphs, "capture", fail)
    else:
        monkeypatch.setattr(Tape, "replay", fail)
    for _ in range(2):
        made = draw(engine, JOB)
        assert same(made, draw(plain, JOB))
        assert made.facts.fast_path == "eager"
    assert caplog.text.count("without CUDA graphs from now on: CUDA error: operation not permitted.") == 1


def test_want_of_memory_ends_all_graphs_and_makes_the_next_ones_rarer(
    engine: Engine, plain: Engine, tapes: list[Tape]
) -> None:
    draw(engine, JOB)
    for _ in range(3):
        # As often as a picture is tried in a smaller way.
        engine._model.free_cache()
    assert not graphs_of(engine)._graphs
    assert same(draw(engine, JOB), draw(plain, JOB))
    assert len(tapes) == 1
    draw(engine, JOB)
    assert len(tapes) == 2


def test_capture_that_finds_no_memory_is_made_later(
    engine: Engine, plain: Engine, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as for_now:
        for_now.setattr(step_graphs, "capture", run_out)
        assert same(draw(engine, JOB), draw(plain, JOB))
    assert same(draw(engine, JOB), draw(plain, JOB))
    assert len(tapes) == 1


def test_graphs_that_were_used_longest_ago_go_first(
    engine: Engine, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_graphs, "KEPT", 2)
    for width, captured in ((64, 1), (96, 2), (64, 2), (128, 3), (64, 3), (96, 4)):
        draw(engine, JOB.model_copy(update={"width": width}))
        assert (width, len(tapes)) == (width, captured)


class Card:
    """What `capture` asks of torch.cuda; a capture that fails leaves its stream the current one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self.stream, self.modes, self.resets = "cuda:0", "main", list[str](), 0
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "device", lambda meant: self.current("device", str(meant)))
        monkeypatch.setattr(torch.cuda, "stream", lambda meant: self.current("stream", meant))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self.stream)
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    @contextmanager
    def current(self, name: str, meant: str) -> Iterator[None]:
        before = getattr(self, name)
        setattr(self, name, meant)
        try:
            yield
        finally:
            setattr(self, name, before)

    @contextmanager
    def graph(self, graph: Any, *, pool: Any, capture_error_mode: str = "global") -> Iterator[None]:
        self.modes.append(capture_error_mode)
        before, self.stream = self.stream, "capturing"
        yield
        self.stream = before

    def reset(self) -> None:
        self.resets += 1


def test_graph_is_captured_on_the_device_that_is_meant_and_other_threads_may_ask_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch captures the current one, and of what another is given to do a graph would have nothing."""
    card = Card(monkeypatch)
    _, found = capture(lambda: card.device, torch.device("cuda:1"), warm_ups=0)  # type: ignore[arg-type, return-value]
    assert (found, card.device, card.modes, card.resets) == ("cuda:1", "cuda:0", ["thread_local"], 0)


def test_capture_that_fails_leaves_the_stream_and_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch)

    def fail() -> Tensor:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        capture(fail, torch.device("cuda"), warm_ups=0)
    assert (card.device, card.stream, card.resets) == ("cuda:0", "main", 1)


@pytest.mark.parametrize("how", ["memory runs out", "one fails", "another path is taken"])
def test_graphs_go_when_the_device_is_done_with_them(
    how: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(engine, JOB)
    graphs, there = graphs_of(engine), []
    graphs._device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: there.append(len(graphs._graphs)))
    if how == "memory runs out":
        engine._model.free_cache()
    elif how == "one fails":
        engine._model._leave_graphs("it failed")
    else:
        engine._model.use(EAGER)
    assert (there, graphs._graphs) == ([1], {})


@pytest.mark.parametrize("fault", ["cannot be captured", "gives another step", "reads nothing"])
def test_graphs_are_not_taken_where_a_captured_step_is_not_the_same_to_the_bit(
    fault: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "cannot be captured":
        # By PyTorch itself, which has no card here.
        monkeypatch.undo()
    elif fault == "reads nothing":
        monkeypatch.setattr(Tape, "replay", lambda tape: None)
    else:
        monkeypatch.setattr(Tape, "replay", lambda tape: tape._done[-1][3].mul_(1 + 1e-6))
    with torch.no_grad():
        engine._model.use(CAPTURED)
    assert engine._model.path == EAGER
