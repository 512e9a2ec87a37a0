"""The live line of a request on a terminal: state, time left, bar, step and seconds. On standard error."""

from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from app.status_words import describe
from app.terminal import printable


class _Words(ProgressColumn):
    """The last status body in words; the time left runs down until the next one, and is not told below 0."""

    def render(self, task: Task) -> Text:
        status, left = task.fields["status"], task.fields["status"].get("eta_seconds")
        if left is not None:
            left -= monotonic() - task.fields["told_at"]
        told = describe({**status, "eta_seconds": left if left and left > 0 else None})
        return Text(printable(task.description + told))


class RequestProgress:
    """`show` takes each status body; nothing is drawn where standard error is no terminal."""

    def __init__(self, label: str = "") -> None:
        self.bars = Progress(
            _Words(),
            BarColumn(),
            TextColumn("{task.fields[steps]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        waiting = {"status": "waiting"}
        self.task = self.bars.add_task(label, total=1.0, status=waiting, told_at=0.0, steps="")

    def __enter__(self) -> Self:
        if self.bars.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Else it writes an empty line.
        if self.bars.console.is_terminal:
            self.bars.stop()

    def show(self, status: dict[str, Any]) -> None:
        steps = f"step {status['step']}/{status['total_steps']}" if status.get("total_steps") else ""
        self.bars.update(
            self.task,
            status=status,
            told_at=monotonic(),
            completed=status.get("progress") or 0.0,
            steps=printable(steps),
        )
