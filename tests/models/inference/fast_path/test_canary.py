"""What a trial's process does, on a CPU and in this process: by PyTorch's tracing alone."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch._dynamo.utils import counters

from benchmarks.gpu.models import TINY, build_components, write_controlnets
from models.inference.denoise.paths import COMPILED, PATHS, candidates
from models.inference.device.loaded_model import LoadedModel
from models.inference.device.placement import Placement
from models.inference.fast_path import canary, choice
from models.inference.fast_path.choice import Choice
from models.inference.fast_path.sample import Trial, inputs, sample
from tests.support.kept_code import failing_backend, keeping_graphs

TRIAL = Trial(
    device="cpu",
    dtype="float32",
    eight_bits=None,
    streams=False,
    transformer=TINY.transformer,
    vae=None,
    vae_dtype="float32",
    tokens=(64, 48),
    paths=("compiled",),
)


@pytest.fixture(autouse=True)
def tracing_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice, "candidates", lambda device, **_: (COMPILED,))
    monkeypatch.setattr(choice, "TOKENS", TRIAL.tokens)
    torch.compiler.set_default_backend("eager")
    yield
    torch.compiler.set_default_backend("inductor")
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


def test_trial_tells_of_what_a_path_fails(capsys: pytest.CaptureFixture[str]) -> None:
    torch.compiler.set_default_backend(failing_backend(0))
    canary.main(Trial.of_json(replace(TRIAL, dtype="bfloat16").as_json()))
    eager, compiled = map(json.loads, capsys.readouterr().out.splitlines())
    assert (eager["name"], compiled["name"]) == ("eager", "compiled")
    assert 0 < eager["error"] < 0.05
    assert compiled["fault"] == "RuntimeError: the code is broken"


def test_trial_traces_the_code_of_each_kind_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: said.append("reset"))
    monkeypatch.setattr(canary, "_tried", lambda path, *_: said.append(path.name) or {})
    paths = candidates("cuda", streams=False, precision="bfloat16")
    canary.main(replace(TRIAL, paths=tuple(path.name for path in paths)))
    assert (len(said), said.count("reset")) == (len(PATHS) + 4, 4)


def test_trial_waits_for_the_card_that_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(canary, "RUNS", 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: said.append(device))
    canary._median_seconds(lambda: said.append("work"), torch.device("cuda:1"))
    canary._median_seconds(lambda: None, torch.device("cpu"))
    assert said == [torch.device("cuda:1"), "work", torch.device("cuda:1")]


def test_path_is_taken_with_the_code_that_its_trial_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As on a GPU, where the decoder is compiled too; the usual one takes as long to trace as all the rest.
    vae = AutoencoderKL(latent_channels=16, block_out_channels=(8,), norm_num_groups=8)
    vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    components = replace(build_components(TINY, torch.float32, "cpu"), vae=vae)
    monkeypatch.setattr(LoadedModel, "_decodes_compiled", property(lambda model: model.is_compiled))
    union = write_controlnets(TINY, components, tmp_path)["2.1"]
    placement = Placement("cpu", "float32", "streamed", held_bytes=200_000)
    model = LoadedModel(components, placement, union)
    path = Choice(model, tmp_path, "auto")
    trial = replace(path._trial(), vae=choice._settings(vae.config), vae_dtype="float32")

    def measured(run: Callable[[], object], _: torch.device) -> float:
        # What has no code is no measure of what has.
        torch.compiler.set_stance("fail_on_recompile")
        run()
        return 1.0

    monkeypatch.setattr(canary, "_median_seconds", measured)
    with keeping_graphs(tmp_path / "code", monkeypatch), torch.no_grad():
        canary.main(Trial.of_json(trial.as_json()))
        torch.compiler.reset()
        counters.clear()
        model.use(COMPILED)
        counted = counters["aot_autograd"]
    eager, compiled = map(json.loads, capsys.readouterr().out.splitlines())
    assert max(eager["error"], compiled["error"]) < 1e-5
    # Four kinds of layers and of control blocks two, layers with LoRAs, and the decoder.
    assert (counted["autograd_cache_hit"], counted["autograd_cache_saved"]) == (8, 0)


def test_trial_runs_a_graph_for_each_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    replays = []

    def capture(run: Callable[[], torch.Tensor], device: torch.device) -> Any:
        answer = torch.zeros_like(run())
        replay = partial(lambda run, answer: replays.append(answer.copy_(run())), run, answer)
        return SimpleNamespace(replay=replay), answer

    monkeypatch.setattr(canary, "capture", capture)
    trial = TRIAL
    with torch.no_grad():
        parts = sample(trial), inputs(trial, torch.float32)
        run = canary._captured(*parts)
        torch.testing.assert_close(run(), canary._answers(*parts), rtol=0, atol=0)
    assert len(replays) == 2
