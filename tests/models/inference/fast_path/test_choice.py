"""The trial beside an engine, on a CPU: real processes and verdicts, by PyTorch's tracing alone."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.inference.denoise.paths import COMPILED, EAGER, PATHS, candidates
from models.inference.engine import Engine
from models.inference.fast_path import canary, choice, process
from models.inference.fast_path.verdict import FILE
from models.job import Generated, Job
from tests.models.inference.test_engine import settings_for
from tests.support.kept_code import failing_backend

JOB = Job(prompt="a red ball", width=64, height=64, num_inference_steps=2, seed=1)
POPEN = subprocess.Popen
FASTER = {"ms": 1.0, "error": 0.0}
SLOWER = {"ms": 2.0, "error": 0.0}


@pytest.fixture(autouse=True)
def on_a_cpu_too(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice, "candidates", lambda device, **_: (COMPILED,))
    monkeypatch.setattr(choice, "TOKENS", (64, 48))
    torch.compiler.set_default_backend("eager")
    yield
    torch.compiler.set_default_backend("inductor")
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


@pytest.fixture
def engine(tiny_model: Path, tmp_path: Path) -> Engine:
    return Engine.load(settings_for(tiny_model, tmp_path))


def draw(engine: Engine, job: Job = JOB) -> Generated:
    return engine.generate(job, None, lambda step: None)


def find(engine: Engine) -> None:
    found = threading.Event()
    engine.path.begin(found.set)
    assert found.wait(120)
    assert engine.path.name == "eager"
    engine.path.settle()


def wait_for_the_trial() -> None:
    for thread in threading.enumerate():
        if thread.name == "fast-path":
            thread.join()


def telling(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The trial's process is this Python script."""

    def start(command: list[str], **options: Any) -> Any:
        return POPEN([command[0], "-c", script], **options)

    monkeypatch.setattr(process.subprocess, "Popen", start)


def says(**measured: dict[str, Any]) -> str:
    lines = [json.dumps({"name": name} | each) for name, each in measured.items()]
    return f"print({chr(10).join(lines)!r}, flush=True)"


def same(one: Generated, other: Generated) -> bool:
    return int(np.abs(one.images[0].astype(int) - other.images[0]).max()) <= 1


def test_trial_in_its_process_tells_what_a_block_takes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As may lie where a server is started.
    (tmp_path / "models.py").write_text("raise SystemExit('not of ours')")
    monkeypatch.chdir(tmp_path)
    other = PATHS[1]
    monkeypatch.setattr(engine.path, "_paths", (other,))
    find(engine)
    (kept,) = json.loads((engine.path._folder / FILE).read_text()).values()
    assert kept["measured"].keys() == {"eager", other.name}
    for each in kept["measured"].values():
        assert each["ms"] > 0
        assert each["error"] < 1e-5


def test_path_that_was_found_is_taken_between_requests_and_named(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = draw(engine)
    telling(monkeypatch, says(eager=SLOWER, compiled=FASTER))
    find(engine)
    after = draw(engine)
    assert (before.facts.fast_path, after.facts.fast_path) == ("eager", "compiled")
    assert same(before, after)
    assert engine.path.reason == "It takes 0.50 of the time of eager blocks here."


def test_known_verdict_needs_no_trial(
    engine: Engine, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it is called with is tested elsewhere, and takes seconds of tracing.
    monkeypatch.setattr("models.inference.device.loaded_model.warm_up", lambda *_: [torch.ones(4)])
    telling(monkeypatch, says(eager=SLOWER, compiled=FASTER))
    find(engine)
    telling(monkeypatch, "raise SystemExit('not again')")
    again = Engine.load(settings_for(tiny_model, tmp_path))
    find(again)
    assert again.path.name == "compiled"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no room')", r"its process ended with 1 \(no room\)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"ended with -9 \(no words\)"),
        ("import time; time.sleep(60)", "it was ended after 1 s"),
        ("print('no json')", "it said nothing"),
        (says(eager=SLOWER, compiled={"fault": "No compiler was found"}), "No compiler was found"),
    ],
    ids=["fails", "is killed", "hangs", "says nothing", "has no compiler"],
)
def test_trial_that_fails_leaves_the_engine_as_it_is(
    script: str, reason: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LIMIT_SECONDS", 1.0 if "sleep" in script else 60.0)
    telling(monkeypatch, script)
    find(engine)
    assert engine.path.name == "eager"
    assert re.search(reason, engine.path.reason)
    # One that came to its end is kept; another may have had no memory, or no time.
    assert (engine.path._folder / FILE).exists() == ("print" in script)


@pytest.mark.parametrize(
    ("times", "decoder"),
    [(0, False), (8, False), (2, True)],
    ids=["as it is taken", "in a request", "as it decodes"],
)
def test_path_that_fails_costs_no_picture_and_is_not_taken_again(
    times: int,
    decoder: bool,
    engine: Engine,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a CPU the decoder's code is none for smaller pictures, which take other convolutions.
    job = JOB.model_copy(update={"width": 320, "height": 288}) if decoder else JOB
    before = draw(engine, job)
    engine._model._compiles_decoder = decoder
    torch.compiler.set_default_backend(failing_backend(times, decoder=decoder))
    telling(monkeypatch, says(eager=SLOWER, compiled=FASTER))
    find(engine)
    after = draw(engine, job)
    # What fails as it decodes has steps of compiled blocks behind it.
    assert same(after, before) if decoder else np.array_equal(after.images[0], before.images[0])
    assert after.facts.fast_path == "eager"
    assert engine.path.reason == "compiled failed: RuntimeError: the code is broken."
    again = Engine.load(settings_for(tiny_model, tmp_path))
    find(again)
    assert (again.path.name, again.path.reason) == ("eager", engine.path.reason)


def test_path_that_has_no_memory_as_it_is_taken_is_tried_again_at_the_next_start(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    telling(monkeypatch, says(eager=SLOWER, compiled=FASTER))
    monkeypatch.setattr("models.inference.device.loaded_model.warm_up", run_out)
    find(engine)
    (kept,) = json.loads((engine.path._folder / FILE).read_text()).values()
    assert (engine.path.name, kept["path"]) == ("eager", "compiled")


@pytest.mark.parametrize(
    ("eight_bits", "times", "taken"),
    [(None, 1.01, True), (None, 1.03, False), ("fp8", 1.03, True), ("fp8", 1.1, False)],
)
def test_attention_that_makes_another_step_is_not_taken(
    eight_bits: Any, times: float, taken: bool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(transformer: Any, *rest: Any) -> list[torch.Tensor]:
        return [torch.ones(4) * (times if engine._model.path.attention == "cudnn" else 1)]

    engine._model.placement = replace(engine._model.placement, eight_bits=eight_bits)
    monkeypatch.setattr("models.inference.device.loaded_model.warm_up", another)
    telling(monkeypatch, says(eager=SLOWER, **{PATHS[1].name: FASTER}))
    find(engine)
    assert (engine.path.name != "eager") == taken
    assert ("away from one of eager" in engine.path.reason) != taken


def test_path_whose_step_is_another_is_not_taken(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.set_default_backend(
        lambda graph, _, **__: lambda *inputs: [1.1 * output for output in graph(*inputs)]
    )
    telling(monkeypatch, says(eager=SLOWER, compiled=FASTER))
    find(engine)
    assert engine.path.name == "eager"
    assert re.search(r"compiled failed: ModelError: A step .* away from one of eager\.$", engine.path.reason)


def test_nothing_is_tried_where_it_is_off(tiny_model: Path, tmp_path: Path) -> None:
    engine = Engine.load(settings_for(tiny_model, tmp_path, fast_path="off"))
    engine.path.begin(pytest.fail)
    engine.path.settle()
    assert (engine.path.name, engine.path.reason) == ("eager", "ZTURBO_FAST_PATH=off.")


def test_card_without_room_for_a_trial_goes_on_eager_and_tries_when_it_is_quiet(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", choice.__name__)
    freed, used = [], 10 * 10**9
    trial = engine.path._trial()
    monkeypatch.setattr(engine.path, "_trial", lambda: trial)
    engine._model.placement = replace(engine._model.placement, device="cuda")
    monkeypatch.setattr(choice, "free_cache", lambda: freed.append(True))
    # What the server keeps for reuse is used as well: no other process can have it.
    monkeypatch.setattr(choice, "used_bytes", lambda device: (used, 12 * 10**9))
    telling(monkeypatch, says(eager=SLOWER, compiled=FASTER))
    found = threading.Event()
    engine.path.begin(found.set)
    assert freed
    assert engine.path.reason.startswith(
        "cuda has no 3.0 GB free, which trying a faster path takes; it is tried"
    )
    # Not after every request.
    used = 0
    engine.path.settle()
    assert len(freed) == 1
    monkeypatch.setattr(choice, "AGAIN_SECONDS", 0.0)
    engine.path._again_at, used = 0.0, 10 * 10**9
    engine.path.settle()
    assert len(caplog.records) == 1
    used = 0
    engine.path.settle()
    assert found.wait(60)
    assert json.loads((engine.path._folder / FILE).read_text())


def test_trial_gives_its_memory_to_a_request_and_is_done_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(monkeypatch, f"{says(eager=SLOWER)}; import time; time.sleep(60)")
    found = threading.Event()
    engine.path.begin(found.set)
    first, real = engine.path._process, engine._denoise_by
    assert first is not None
    calls = []

    def run_out(*parts: Any) -> Any:
        calls.append(first)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*parts)

    monkeypatch.setattr(engine, "_denoise_by", run_out)
    monkeypatch.setattr(choice, "AGAIN_SECONDS", 0.0)
    made = draw(engine)
    assert first._child is None or first._child.returncode == -9
    # It is made as it would be without a trial.
    assert (made.facts.warnings, engine.counts["oom|free_cache"]) == ((), 1)
    wait_for_the_trial()
    assert "a request needed the memory that it had; it is tried again" in engine.path.reason
    assert not (engine.path._folder / FILE).exists()
    telling(monkeypatch, says(eager=SLOWER))
    assert not found.is_set()
    engine.path.settle()
    assert found.wait(60)


@pytest.mark.parametrize(("measured", "taken"), [(FASTER, True), (SLOWER, False)], ids=["faster", "not"])
def test_verdict_that_was_found_beside_a_request_is_not_kept(
    measured: dict[str, Any], taken: bool, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inference.device.loaded_model.warm_up", lambda *_: [torch.ones(4)])
    go = tmp_path / "go"
    waits = f"import time, pathlib\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
    telling(monkeypatch, waits + says(eager=SLOWER, compiled=measured))
    engine.path.begin(lambda: None)
    draw(engine)
    go.touch()
    wait_for_the_trial()
    engine.path.settle()
    assert (engine.path.name == "compiled") == taken
    assert engine.path.reason.endswith("it is tried again when it is quiet.") != taken
    assert not (engine.path._folder / FILE).exists()


def test_driver_is_asked_for_where_linux_has_none_and_else_no_verdict_is_taken_from_before(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "LINUX_DRIVER", tmp_path / "version")
    monkeypatch.setattr(choice, "drivers", lambda: ["610.12"])
    assert choice._driver() == "610.12"
    monkeypatch.setattr(choice, "drivers", list)
    engine.path._key["driver"] = choice._driver()
    telling(monkeypatch, says(eager=SLOWER, compiled=SLOWER))
    for _ in range(2):
        find(engine)
        engine.path._process, last = None, engine.path._process
        assert last is not None
    (tmp_path / "version").write_text("NVRM version: 610.12\nGCC version: 14")
    assert choice._driver() == "NVRM version: 610.12"


def test_verdict_for_want_of_memory_is_not_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(canary, "warm_up", run_out)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        canary.main(replace(engine.path._trial(), paths=("compiled",)))
    said = f"torch.OutOfMemoryError: {raised.value}"
    telling(monkeypatch, f"{says(eager=SLOWER)}; raise SystemExit({said!r})")
    engine.path.begin(pytest.fail)
    wait_for_the_trial()
    assert "CUDA out of memory" in engine.path.reason
    assert "it is tried again when it is quiet" in engine.path.reason
    assert not (engine.path._folder / FILE).exists()


def test_graphs_are_no_candidate_where_weights_stream_and_nothing_is_on_a_cpu() -> None:
    assert candidates("cpu", streams=False, precision="bfloat16") == ()
    assert EAGER not in candidates("cuda", streams=False, precision="bfloat16")
    resident, streamed = (
        candidates("cuda:0", streams=streams, precision="int8") for streams in (False, True)
    )
    captured = {path for path in resident if path.captured}
    assert captured == set(resident) - set(streamed)
    # What is left where a graph fails.
    assert len({path.uncaptured() for path in captured}) == len(captured) >= 2
    assert {path.uncaptured() for path in resident} == set(streamed)


def test_kernel_of_swiglu_is_a_candidate_for_weights_in_bfloat16_that_stay() -> None:
    for precision, streams in product(("bfloat16", "float16", "int8", "fp8"), (False, True)):
        found = any(path.swiglu for path in candidates("cuda", streams=streams, precision=precision))
        assert found == (precision == "bfloat16" and not streams)
