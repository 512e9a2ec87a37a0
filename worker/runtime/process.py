"""One worker process: `run_worker` returns when it was told to stop and its work is done or handed back."""

import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from redis.exceptions import RedisError

from models.config import ModelSettings
from models.errors import DeviceBroken, ModelError
from models.imports import importing
from models.weights.availability import missing_detectors
from worker.config import WorkerSettings
from worker.counters import counted
from worker.errors import WorkerError
from worker.host.parent_death import known_pid
from worker.queue import keys
from worker.queue.connection import connect
from worker.queue.doorbell import Doorbells, answer_bells
from worker.queue.keys import Queue
from worker.queue.registry import Registry, WorkerInfo, WorkerState
from worker.queue.work_queue import WorkQueue
from worker.runtime import heartbeat, sleep
from worker.runtime.consumer import DEVICE_BROKEN_STATUS, Consumer
from worker.runtime.quarantine import FAILURES, REST_SECONDS, CrashLoop
from worker.runtime.reconciler import Reconciler
from worker.runtime.sweeper import Sweeper
from worker.stages.task import Engine, Tools
from worker.storage import location
from worker.storage.backend import open_objects
from worker.storage.objects import Objects
from worker.storage.pictures import Storage

log = logging.getLogger(__name__)

STORAGE_SECONDS = 600.0
"""What a worker has in hand waits so long for an S3 store that is away; then its request fails."""
STORAGE_RETRY_SECONDS = 0.5
SETUP_RETRY_SECONDS = 30.0
ONE_STOP_SECONDS = 1.0
"""Signals closer together than this are one: Ctrl-C reaches a child from the terminal and from its parent."""

CONTAINER_NAME = re.compile("[0-9a-f]{12}")
"""The host name that Docker gives a container, its id: no other machine has it."""

LoadEngine = Callable[[ModelSettings], Engine]


def _load_engine(settings: ModelSettings) -> Engine:
    with importing():
        from models.inference.engine import Engine as RealEngine
    # All that stays, and a picture need not wait while it is looked through.
    gc.freeze()
    return RealEngine.load(settings)


def run_worker(
    kind: Queue, settings: WorkerSettings, redis_url: str, load_engine: LoadEngine = _load_engine
) -> NoReturn:
    """Works off one queue until SIGTERM or SIGINT; call it on the main thread of a process of its own.

    The first signal lets the stage in hand end, for `drain_seconds` at most; what is not done by then, or at
    a second signal, goes back to the front of its queue.
    """
    with suppress(SystemExit):
        WorkerProcess(kind, settings, redis_url, load_engine).run()
    _end_process(0)


class WorkerProcess:
    def __init__(
        self, kind: Queue, settings: WorkerSettings, redis_url: str, load_engine: LoadEngine
    ) -> None:
        self._sleeper = sleep.sleeper()
        self.id = self._sleeper or f"{kind}-{socket.gethostname()}-{known_pid()}-{uuid.uuid4().hex[:8]}"
        self._kind = kind
        self._settings = settings
        self._redis_url = redis_url
        self._load_engine = load_engine
        self._bells = Doorbells(redis_url)
        self._client = connect(redis_url)
        self._registry = Registry(self._client, hold_seconds=settings.lease_seconds / 2)
        self._crash_loop = CrashLoop(self._client, settings.device)
        self._state: WorkerState
        self._setting_up: WorkerState = "waking" if self._sleeper else "starting"
        """Its state until it is ready: it may be awaited by those who know it from before it slept."""
        self._state = self._setting_up
        self._detail: str | None = None
        self._engine: Engine | None = None
        self._consumer: Consumer | None = None
        self._stopping = threading.Event()
        self._signalled_at = 0.0

    def run(self) -> None:
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGINT, _leave)
        try:
            if self._sleeper:
                self._sleep()
            else:
                # Before this worker says that it lives: its own id begins alike.
                self._bury_predecessors()
            self._work()
        finally:
            self._sign_off()

    def _work(self) -> None:
        lease_seconds = self._settings.lease_seconds
        beside: list[Reconciler | Sweeper] = [
            Reconciler(self._work_queue(), self._registry, self._bells, lease_seconds, self._describe)
        ]
        for thread in beside:
            thread.start()
        try:
            objects = self._find_objects()
            if self._kind == "io":
                sweeper = Sweeper(self._work_queue(), objects, self._settings)
                sweeper.start()
                beside.append(sweeper)
            if self._kind == "gpu":
                self._rest_if_it_keeps_failing()
                self._engine = self._load()
            self._consumer = consumer = Consumer(
                self._kind,
                self.id,
                self._work_queue(),
                self._work_queue(),
                self._bells,
                Tools(self._settings, objects, self._work_queue().in_line),
                self._engine,
                self._crash_loop,
                self._quit,
            )
            self._state, self._detail = "ready", None
            log.info("worker %s is ready", self.id)
            if self._engine and self._engine.path:
                # The bell has it settled at once, should no request come.
                self._engine.path.begin(lambda: self._bells.ring("gpu"))
            while not self._stopping.is_set():
                answer_bells(
                    self._kind,
                    self._redis_url,
                    lambda: consumer.drain(self._stopping),
                    self._stopping,
                    self._on_signal,
                    self._settings.idle_seconds if self._kind == "gpu" else None,
                )
                if not self._stopping.is_set() and self._takes_no_more():
                    break
        finally:
            for thread in beside:
                thread.stop()
        if not self._stopping.is_set():
            self._crash_loop.passed()
            sleep.fall_asleep(self.id)

    def _takes_no_more(self) -> bool:
        """Says that this worker sleeps, which it does not where Redis cannot be told."""
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGINT, _leave)
        try:
            self._lie_down()
            self._registry.say(self._describe())
        except RedisError:
            self._state, self._detail = "ready", None
            return False
        log.info("worker %s sleeps: %s", self.id, self._detail)
        return True

    def _sleep(self) -> None:
        self._lie_down()
        sleep.hear_signals()
        sleep.until_wanted(self._client, self._registry, self._describe)
        log.info("worker %s wakes: a request came", self.id)
        self._state, self._detail = self._setting_up, None

    def _lie_down(self) -> None:
        idle = f"{self._settings.idle_seconds} s"
        self._state = "asleep"
        self._detail = f"No request came for {idle}, so it gave its memory back; the next one wakes it."

    def _bury_predecessors(self) -> None:
        """In a container that was started again, who had its name and is no process now is dead for sure.

        So is who had our own process id; but at each start a worker may get another.
        """
        host = socket.gethostname()
        if not CONTAINER_NAME.fullmatch(host):
            return
        with suppress(RedisError, OSError):
            # Threads, which have ids of the same kind, are not listed.
            alive = {path.name for path in Path("/proc").iterdir()} - {str(known_pid())}
            for pid in {str(known_pid()), *self._registry.process_ids(self._kind, host)} - alive:
                self._work_queue().declare_dead(self._kind, f"{self._kind}-{host}-{pid}-")

    def _work_queue(self) -> WorkQueue:
        """A work queue on a client of its own."""
        return WorkQueue(connect(self._redis_url), self._settings)

    def _rest_if_it_keeps_failing(self) -> None:
        failures = self._crash_loop.begin()
        if failures < FAILURES:
            return
        self._state = "quarantined"
        self._detail = (
            f"{self._crash_loop.name}: {failures} workers on it ended one after the other without a picture; "
            f"it is tried again after {REST_SECONDS:.0f} s, or when this worker is stopped and started."
        )
        log.error("%s", self._detail)
        time.sleep(REST_SECONDS)
        self._state, self._detail = self._setting_up, None

    def _find_objects(self) -> Objects:
        """Where this server keeps its bytes, once an API has told and the place answers."""
        while True:
            try:
                if told := self._told():
                    settings = location.adopt(told, self._settings)
                    Storage(open_objects(settings)).check()
                    self._state, self._detail = self._setting_up, None
                    return open_objects(settings, STORAGE_SECONDS)
                self._detail = "It waits for `zturbo api` to tell where pictures are kept."
            except (RedisError, WorkerError) as error:
                if str(error) != self._detail:
                    log.error("this worker takes no requests yet: %s", error)
                self._state, self._detail = "setup_failed", str(error)
            time.sleep(STORAGE_RETRY_SECONDS)

    def _told(self) -> str | None:
        told: str | None = self._client.get(keys.STORAGE)  # type: ignore[assignment]  # answers are decoded
        return told

    def _load(self) -> Engine:
        """The engine; tried again for ever, since what is missing (weights, memory) may come."""
        while True:
            try:
                return self._load_engine(self._settings)
            except DeviceBroken as error:
                self._quit(DEVICE_BROKEN_STATUS, str(error))
            except ModelError as error:
                self._detail = str(error)
                log.error("the model cannot be loaded: %s", error)
            except Exception as error:
                self._detail = f"{type(error).__name__}: {error}"
                log.exception("the model cannot be loaded")
            self._state = "setup_failed"
            time.sleep(SETUP_RETRY_SECONDS)

    def _describe(self) -> WorkerInfo:
        used, total = self._memory()
        return WorkerInfo(
            id=self.id,
            kind=self._kind,
            state="busy" if self._consumer and self._consumer.holdings else self._state,
            model=self._engine.name if self._engine else None,
            device=self._engine.device if self._engine else None,
            fast_path=self._engine.path.name if self._engine and self._engine.path else None,
            detail=self._detail,
            memory_used=used,
            memory_total=total,
            lacks=self._lacks(),
            counts={**counted(), **(self._engine.counts if self._engine else {})},
        )

    def _lacks(self) -> dict[str, int]:
        """Asked each time, since weights may come while this process runs."""
        if self._kind != "gpu":
            return {}
        try:
            return missing_detectors(self._settings)
        except OSError:
            # A cache that cannot be read: its requests will tell.
            return {}

    def _memory(self) -> tuple[int, int] | tuple[None, None]:
        """Bytes in use and in all on the GPU of a loaded engine."""
        if self._engine is None or not self._engine.device.startswith("cuda"):
            return None, None
        from models.inference.device.devices import used_bytes

        return used_bytes(self._engine.device)

    def _on_signal(self) -> None:
        now = time.monotonic()
        if not self._stopping.is_set():
            self._stopping.set()
            self._give_up_in(self._settings.drain_seconds)
        elif now - self._signalled_at > ONE_STOP_SECONDS:
            self._give_up_in(0)
        self._signalled_at = now

    def _give_up_in(self, seconds: float) -> None:
        # On a thread: the signal may have come while the main thread holds a lock of redis-py's.
        timer = threading.Timer(seconds, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        """Hands back what is in hand and ends the process, wherever its main thread is."""
        holdings = self._consumer.holdings.copy() if self._consumer else {}
        try:
            for token, request_id in holdings.items():
                self._work_queue().release(request_id, token)
                log.warning("request %s is handed back: this worker stops", request_id)
            self._sign_off()
        except RedisError as error:
            log.warning("nothing could be handed back, its lease will run out: %s", error)
        finally:
            _end_process(0)

    def _quit(self, status: int, reason: str) -> NoReturn:
        """Ends the process, wherever its threads are; what is in hand counts as tried, and waits again."""
        log.error("%s This worker ends with status %d, to be started again.", reason, status)
        try:
            self._work_queue().declare_dead(self._kind, self.id)
        except RedisError as error:
            log.warning("nothing could be handed back, its lease will run out: %s", error)
        finally:
            _end_process(status)

    def _sign_off(self) -> None:
        if self._kind == "gpu":
            self._crash_loop.passed()
        heartbeat.end(self._kind)
        try:
            self._registry.leave(self._describe())
        except RedisError as error:
            log.warning("this worker's entry will run out by itself: %s", error)


def _end_process(status: int) -> NoReturn:
    """At once, whatever its threads do: to take torch apart first would cost a second or two of a core."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def _leave(*_: object) -> None:
    """A signal before there is anything to hand back."""
    raise SystemExit(0)
