"""How a worker gives its memory back while no request comes, and when it loads its model again.

It becomes its own command anew (exec). To whoever started it, our supervisor or Docker, the process lives on;
to the kernel and to the GPU's driver the program that held the memory has ended. The new one sleeps first and
loads nothing until a request waits.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import redis
from redis.exceptions import RedisError

from worker.queue import keys
from worker.queue.registry import Registry, WorkerInfo
from worker.runtime import heartbeat

log = logging.getLogger(__name__)

SLEEPER = "SLEEPING_WORKER"
"""Environment variable of a program that sleeps at first: the id of the worker that it goes on being."""
STOPPING = (signal.SIGTERM, signal.SIGINT)
OPEN_FILES = Path("/dev/fd")
STDERR = 2
TICK_SECONDS = 1.0
"""It says that it is there so often, and looks for requests whose news went astray."""


def sleeper() -> str | None:
    """The id of the worker that sleeps in this program; None: it starts in earnest."""
    return os.environ.pop(SLEEPER, None)


def fall_asleep(worker_id: str) -> NoReturn:
    """Becomes this process's command anew, asleep. To be called on the main thread, with nothing in hand.

    A signal to stop that comes meanwhile waits for `hear_signals`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    # What a library opened without close-on-exec, a GPU's device for instance, would stay open.
    for fd in sorted(int(file.name) for file in OPEN_FILES.iterdir()):
        # The descriptor that listed them is closed already.
        with suppress(OSError):
            os.set_inheritable(fd, fd <= STDERR)
    sys.stdout.flush()
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, os.environ | {SLEEPER: worker_id})  # noqa: S606  no shell is wanted


def hear_signals() -> None:
    """Takes signals from here on: their handlers stand."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def until_wanted(client: redis.Redis, registry: Registry, describe: Callable[[], WorkerInfo]) -> None:
    """Returns when a request waits for this worker, which is then known as `waking`.

    `describe` tells what it says of itself meanwhile. Redis wakes it; while Redis is away it sleeps on.
    """
    while True:
        try:
            with client.pubsub(ignore_subscribe_messages=True) as arrivals:  # type: ignore[no-untyped-call]
                arrivals.subscribe(keys.ARRIVED)
                while not _is_wanted(registry, describe()):
                    arrivals.get_message(timeout=TICK_SECONDS)
                return
        except RedisError as error:
            log.warning("Redis does not answer: %s", error)
            time.sleep(TICK_SECONDS)


def _is_wanted(registry: Registry, asleep: WorkerInfo) -> bool:
    registry.say(asleep)
    heartbeat.beat(asleep.kind, asleep.state)
    return registry.wake(replace(asleep, state="waking", detail=None))
