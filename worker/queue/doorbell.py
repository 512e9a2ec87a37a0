"""The only module that talks to RQ: bells, and the worker that answers them.

An RQ job here is only a doorbell: whoever hears one drains its queue of waiting requests, whatever the job
says. A bell too many costs ten milliseconds; a lost one is rung again by the reconciler.
So nothing depends on RQ's own promises about jobs, which do not hold for a process that keeps a model loaded.
"""

import json
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import FrameType

import redis
from rq import Queue as BellQueue
from rq import SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer

from worker.queue.keys import QUEUES, Queue

log = logging.getLogger(__name__)

BELL_LISTS = {queue: f"{BellQueue.redis_queue_namespace_prefix}zturbo-{queue}" for queue in QUEUES}
"""Where RQ keeps the bells; the scripts count them."""

SOCKET_SECONDS = 5.0

WORKER_TTL_SECONDS = 30
"""An idle RQ worker waits this less 15 s for a bell before it looks after itself."""

BELL_TIMEOUT_SECONDS = 86_400
"""RQ's job timeout raises an exception anywhere in the code, so it must never fire in earnest."""

BELL_TTL_SECONDS = 60
"""How long RQ remembers a bell that went wrong."""

PAUSE_SECONDS = 0.5
"""Wait before RQ's loop is started again after it gave up."""


JOB_NAME = "worker.queue.run_next"
"""What the job of a bell names. Workers of older versions import it; today's do not look."""

JOB_DATA = json.dumps([JOB_NAME, None, [], {}]).encode()
JOB_FIELDS = {b"created_at", b"enqueued_at", b"origin", b"status", b"timeout", b"result_ttl", b"failure_ttl"}
"""What is read of a bell's job; by its other fields RQ would call functions, and post to URLs."""


class _Bell(Job):
    """A job on our lists: it rings, and does nothing else that its hash in Redis may say."""

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        kept = {name: value for name, value in raw_data.items() if name in JOB_FIELDS}
        super().restore({**kept, b"data": JOB_DATA})

    def perform(self) -> None:
        assert _drain is not None  # noqa: S101 - only `answer_bells` performs jobs
        _drain()


def _bell_queue(queue: Queue, client: redis.Redis) -> BellQueue:
    return BellQueue(f"zturbo-{queue}", connection=client, serializer=JSONSerializer, job_class=_Bell)


class Doorbells:
    """Rings the queues' bells. Safe to share between threads."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(redis_url, socket_timeout=SOCKET_SECONDS)

    def ring(self, queue: Queue, times: int = 1) -> None:
        bells = _bell_queue(queue, self._client)
        for _ in range(times):
            bells.enqueue(
                JOB_NAME,
                job_timeout=BELL_TIMEOUT_SECONDS,
                result_ttl=0,
                failure_ttl=BELL_TTL_SECONDS,
            )

    def close(self) -> None:
        self._client.close()


_drain: Callable[[], None] | None = None


class _BellWorker(SimpleWorker):
    """RQ's worker, stopped by our signal rule: never in the middle of a job, and without asking Redis."""

    def __init__(self, queue: Queue, client: redis.Redis, on_signal: Callable[[], None]) -> None:
        super().__init__(
            [_bell_queue(queue, client)],
            name=f"{queue}-{uuid.uuid4().hex}",
            connection=client,
            job_class=_Bell,
            worker_ttl=WORKER_TTL_SECONDS,
            serializer=JSONSerializer,
            log_job_description=False,
        )
        self._on_signal = on_signal
        self._answering = False

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self.request_stop)
        signal.signal(signal.SIGINT, self.request_stop)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self._on_signal()
        self._stop_requested = True
        if not self._answering:
            raise StopRequested

    def execute_job(self, job: Job, queue: BellQueue) -> None:
        self._answering = True
        try:
            super().execute_job(job, queue)
        finally:
            self._answering = False


def answer_bells(
    queue: Queue,
    redis_url: str,
    drain: Callable[[], None],
    stopping: threading.Event,
    on_signal: Callable[[], None],
    idle_seconds: int | None = None,
) -> None:
    """Calls `drain` whenever a bell rings, until `stopping` is set; call it on the main thread.

    Without a bell for `idle_seconds` it returns too. `on_signal` is called on SIGTERM and SIGINT, each time;
    it should set `stopping`.
    """
    global _drain
    heard_at = time.monotonic()

    def answer() -> None:
        nonlocal heard_at
        try:
            drain()
        finally:
            heard_at = time.monotonic()

    _drain = answer
    client = redis.Redis.from_url(redis_url)
    try:
        while not stopping.is_set():
            try:
                _BellWorker(queue, client, on_signal).work(
                    logging_level="WARNING", max_idle_time=idle_seconds
                )
            except StopRequested:
                break
            except Exception as error:
                # RQ gives up in many ways when Redis goes away; the requests themselves are not in its hands.
                log.warning("RQ stopped (%s: %s), it is started again", type(error).__name__, error)
            # By a clock that is never set, as RQ's may be.
            if idle_seconds and time.monotonic() - heard_at >= idle_seconds:
                break
            stopping.wait(PAUSE_SECONDS)
    finally:
        client.close()
