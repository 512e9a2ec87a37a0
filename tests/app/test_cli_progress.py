"""What the command line tells of a request on its way."""

import io
import sys

import pytest

from app.cli.progress import RequestProgress
from app.status_words import describe


def test_bar_shows_place_in_line_step_and_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    with RequestProgress() as progress:
        progress.show({"status": "in_queue", "queue_position": 3, "progress": 0.0})
        progress.bars.refresh()
        running = {"status": "in_progress", "progress": 0.25, "step": 2, "total_steps": 8}
        progress.show(running | {"eta_seconds": 381.5})
        progress.bars.refresh()
    assert "in queue, 3 ahead" in shown.getvalue()
    assert "in progress, about 7 min left" in shown.getvalue()
    assert "step 2/8" in shown.getvalue()
    assert "0:00:0" in shown.getvalue()


def test_time_left_runs_down_until_the_next_status_and_is_gone_when_it_was_too_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("app.cli.progress.monotonic", lambda: now)
    progress = RequestProgress("1 of 2, ")
    (task,) = progress.bars.tasks

    def words() -> str:
        return str(next(iter(progress.bars.make_tasks_table([task]).columns[0].cells)))

    progress.show({"status": "in_progress", "progress": 0.25, "eta_seconds": 381.5})
    assert words() == "1 of 2, in progress, about 7 min left"
    now += 330
    assert words() == "1 of 2, in progress, about 52 s left"
    now += 60
    assert words() == "1 of 2, in progress"
    progress.show({"status": "in_progress", "progress": 0.5, "eta_seconds": 250.0})
    assert words() == "1 of 2, in progress, about 5 min left"


def test_description_reads_like_a_sentence() -> None:
    assert describe({"status": "in_progress"}) == "in progress"
    assert describe({"status": "in_queue", "queue_position": 0}) == "in queue, 0 ahead"
    loading = {"status": "in_queue", "queue_position": 0, "note": "The model is being loaded."}
    assert describe(loading) == "in queue, 0 ahead, the model is being loaded"
    assert describe({"status": "in_progress", "eta_seconds": 11.2}) == "in progress, about 12 s left"
    assert describe({"status": "in_progress", "eta_seconds": 4741.0}) == "in progress, about 1 h 20 min left"
