"""The live line of a request on a terminal: state, time left, bar, step and seconds. On standard error."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.status_words import describe
from app.terminal import printable


class RequestProgress:
    """`show` takes each status body; nothing is drawn where standard error is no terminal."""

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[steps]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bars.add_task(f"{label}waiting", total=1.0, steps="")

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
            description=printable(self.label + describe(status)),
            completed=status.get("progress") or 0.0,
            steps=printable(steps),
        )
