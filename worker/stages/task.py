"""The interface of a task: its stages, which take plain values and return plain values.

A stage reads its record and returns an `Advance` or a `Finish`; `worker.runtime.consumer` alone writes them
down. No stage talks to Redis, but to ask what is in line. Each can be done again from its record: another
worker may have died over it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from models.job import Generated, Job, KeepGoing, OnStep, Pixels, Preprocess, Start
from models.prompt.expansion import Expansion
from worker.config import WorkerSettings
from worker.inputs.disk_quota import DiskQuota, InLine
from worker.inputs.weight_transfer import WeightTransfer
from worker.queue.affinity import Weights
from worker.queue.keys import Stage
from worker.queue.record import Record
from worker.storage.objects import Objects
from worker.storage.pictures import Storage
from worker.storage.workspace import Workspace


class Path(Protocol):
    """How an engine's model runs; `models.inference.fast_path.choice.Choice` is the real one."""

    @property
    def name(self) -> str: ...

    def begin(self, on_found: Callable[[], None]) -> None:
        """Have faster ways tried beside; `on_found` is called, on any thread, when `settle` has a use."""

    def settle(self) -> None:
        """Take the way that was found. To be called between two requests."""


class Engine(Protocol):
    """What is asked of a loaded model; `models.inference.engine.Engine` is the real one."""

    name: str
    device: str

    @property
    def path(self) -> Path | None:
        """None for an engine that has one way only."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened since it was loaded, by names that `worker.counters` explains."""

    def generate(
        self,
        job: Job,
        control: Pixels | None,
        on_step: OnStep,
        start: Start | None = None,
        *,
        keep_going: KeepGoing,
    ) -> Generated: ...

    def expand(self, prompt: str, seed: int, keep_going: KeepGoing) -> Expansion: ...

    def control_map(self, preprocess: Preprocess, source: Pixels, keep_going: KeepGoing) -> Pixels: ...


@dataclass(frozen=True)
class Advance:
    """The request goes on to `stage`, with what the present one made (JSON) and the weights needed there."""

    stage: Stage
    made: dict[str, Any]
    weights: Weights | None = None


@dataclass(frozen=True)
class Finish:
    """The request has succeeded; `output` (JSON) is what its record tells of it."""

    output: dict[str, Any]


Outcome = Advance | Finish


class Tools:
    """What the stages of one worker work with."""

    def __init__(self, settings: WorkerSettings, objects: Objects, in_line: InLine | None = None) -> None:
        self.settings = settings
        self.storage = Storage(objects)
        self.workspace = Workspace(objects)
        self.quota = DiskQuota(settings, in_line)
        self.adapters = WeightTransfer(objects, settings, self.quota)


T = TypeVar("T")
"""What the device makes of a task."""


class Task(ABC, Generic[T]):
    """One request, at the stage that its record names. Each stage raises ModelError, WorkerError and what its
    `keep_going` or `on_step` raises.

    On the gpu queue there are two parts: `generate` for the device, and `keep`, which may wait for a disk
    while the device does the next task already.
    """

    def __init__(self, record: Record, token: str, tools: Tools) -> None:
        """`token` is that of the worker's hold on the request; it names what the worker writes."""
        self.record = record
        self._token = token
        self._tools = tools

    @property
    def weights(self) -> Weights | None:
        """What `generate` loads beside the model; None when it loads nothing."""
        return None

    @abstractmethod
    def prepare(self, keep_going: KeepGoing) -> Outcome:
        """Fetches and checks all that was asked for. It may wait for the network for minutes."""

    @abstractmethod
    def generate(self, engine: Engine, keep_going: KeepGoing, on_step: OnStep) -> T:
        """What needs the device, and nothing else. Raises DeviceBroken too."""

    @abstractmethod
    def keep(self, made: T) -> Outcome:
        """Keeps what the device made where the next stage finds it."""

    @abstractmethod
    def finish(self) -> Outcome:
        """Encodes and stores what was made."""
