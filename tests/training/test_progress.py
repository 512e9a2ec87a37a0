"""A killed stage goes on from its checkpoint, and its clock with it."""

import json
from pathlib import Path

import pytest
import torch

from training import progress as progressing
from training.progress import Progress, learning_rate


class Clock:
    """A clock that a test moves on."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progressing, "time", clock)
    return clock


def _run(
    folder: Path, model: torch.nn.Module, clock: Clock, seconds: int, stop_after: int | None = None
) -> tuple[Progress, list[float]]:
    progress = Progress(folder, "stage", seconds / 60, {"model": model})
    fractions = []
    for at, fraction in enumerate(progress.steps()):
        fractions.append(round(fraction, 3))
        with torch.no_grad():
            model.weight += 1
        progress.record(loss=float(at))
        clock.now += 10
        if at + 1 == stop_after:
            break
    return progress, fractions


def test_stage_lasts_its_time_and_tells_the_fraction_that_has_passed(tmp_path: Path, clock: Clock) -> None:
    progress, fractions = _run(tmp_path, torch.nn.Linear(1, 1), clock, 40)
    assert fractions == [0, 0.25, 0.5, 0.75]
    assert (progress.step, progress.fraction) == (4, 1)


def test_killed_stage_goes_on_where_it_was_saved(tmp_path: Path, clock: Clock) -> None:
    killed = torch.nn.Linear(1, 1)
    # The checkpoint is of the first whole minute, seven steps in; what came after is done again.
    _run(tmp_path, killed, clock, 200, stop_after=12)
    restored = torch.nn.Linear(1, 1)
    progress, fractions = _run(tmp_path, restored, clock, 200)
    assert fractions[0] == 0.35
    assert progress.step == 20
    torch.testing.assert_close(restored.weight, killed.weight - 12 + 20)


def test_finished_stage_takes_no_further_step(tmp_path: Path, clock: Clock) -> None:
    model = torch.nn.Linear(1, 1)
    _run(tmp_path, model, clock, 40)
    _, fractions = _run(tmp_path, torch.nn.Linear(1, 1), clock, 40)
    assert fractions == []


def test_log_has_means_since_the_line_before(tmp_path: Path, clock: Clock) -> None:
    _run(tmp_path, torch.nn.Linear(1, 1), clock, 60)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["stage"] == "stage"
    assert [line["loss"] for line in lines if "loss" in line] == [0.5, 2.5, 4.5]


def test_learning_rate_warms_up_holds_and_falls() -> None:
    assert learning_rate(0.1, 1.0, step=0, warm_up=10) == pytest.approx(0.1)
    assert learning_rate(0.4, 1.0, step=50, warm_up=10) == 1.0
    assert learning_rate(1.0, 1.0, step=50, warm_up=10) == pytest.approx(0.01)
