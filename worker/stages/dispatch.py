"""The choice of the class that does a request's work."""

from typing import Any

from worker.queue.record import Record, TaskKind
from worker.stages.control_map import ControlMapTask
from worker.stages.expansion import ExpansionTask
from worker.stages.picture import PictureTask
from worker.stages.task import Task, Tools

_TASKS: dict[TaskKind, type[Task[Any]]] = {
    "picture": PictureTask,
    "control_map": ControlMapTask,
    "expansion": ExpansionTask,
}


def task_of(record: Record, token: str, tools: Tools) -> Task[Any]:
    """The task that a record stands for, in the hands of the worker that holds it by `token`."""
    return _TASKS[record.kind](record, token, tools)
