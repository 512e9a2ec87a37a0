"""The Lua scripts of `lua/`, which are the only writers of records: one function for each.

A function makes a `Call`, which `Scripts` or `AsyncScripts` sends. Its parameters are the script's arguments:
the script finds each as a local of the same name. A mapping is a list of fields and values there.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

import redis
import redis.asyncio
from pydantic_core import to_json
from redis.commands.core import AsyncScript, Script

from worker.queue.doorbell import BELL_LISTS
from worker.queue.keys import Queue, Stage, lua_header
from worker.queue.record import State, pairs

_LUA = Path(__file__).parent / "lua"

T = TypeVar("T")

Standing = Literal["held", "repeated", "gone", "cancelled", "fenced"]
"""What a token may do with a request, as `standing` of lua/lib.lua tells it."""


class Queued(NamedTuple):
    """The submit stands for a request in the queue, perhaps one that was there before."""

    id: str
    ahead: int
    """Requests ahead of it."""
    bells_missing: int
    """Bells that the io queue lacks."""


class NotQueued(NamedTuple):
    why: Literal["line_full", "share_full", "too_fast", "no_room", "key_reused"]
    seconds: int = 0
    """Time until it is likely to be taken; 0 where waiting does not help."""


class Advanced(NamedTuple):
    standing: Standing
    bells_missing: int
    """Bells that the queue of the next stage lacks."""


class Cancellation(NamedTuple):
    outcome: Literal["cancelled", "not_cancellable"]
    state: State
    """The state afterwards."""


class Reaped(NamedTuple):
    """What one look at the leases did, and the bells that each queue lacks."""

    handed_back: int
    failed: int
    bells: dict[Queue, int]


@dataclass(frozen=True)
class Call(Generic[T]):
    """A script with its arguments, and how its answer is read."""

    script: str
    arguments: Mapping[str, Any]
    read: Callable[[Any], T] = lambda said: said

    @property
    def sent(self) -> bytes:
        """The arguments as Redis takes them: one text, as each by itself costs redis-py 3 µs."""
        return to_json(
            {
                name: [*chain.from_iterable(value.items())] if isinstance(value, Mapping) else value
                for name, value in self.arguments.items()
                if value is not None
            }
        )


def submit(
    *,
    id: str,
    owner: str,
    key: str = "",
    digest: str = "",
    key_seconds: int = 0,
    most: int,
    most_of_owner: int = 0,
    most_in_minute: int = 0,
    size: int = 0,
    spare: int | None = None,
    fields: Mapping[str, str],
) -> Call[Queued | NotQueued]:
    """Puts a request in line, unless one with this id is there or `key` stands for one.

    `key` is the owner's own for this submit ("": none) and `digest` of what it stands for, for `key_seconds`.
    `most` requests may be in line, `most_of_owner` of this owner; `most_in_minute` is how many this owner may
    submit (0: any number, the last two). `size` is the bytes of the picture in the request, `spare` those
    that the store could take before it (None: any number); half of what it can take is for one owner.
    `fields` are the record's beside those that the script writes.
    """
    return Call("submit", locals(), _read_submit)


def count_upload(*, owner: str, file_id: str, size: int, spare: int | None, keep_ms: int) -> Call[bool]:
    """Counts an upload towards what its owner keeps, for so long from now; False when there is no room.

    `size` and `spare` are as in `submit`. What is counted already is not refused.
    """
    return Call("count_upload", locals(), bool)


def next(
    *,
    queue: Queue,
    token: str,
    worker_id: str,
    lease_ms: int,
    known_version: int,
    held_controlnet: str = "",
    held_loras: str = "",
) -> Call[dict[str, str] | None]:
    """Gives a waiting request to a token never used before; None when there is none for this worker.

    `known_version` is the newest version of a record that the worker knows; the last two are what it holds
    beside the model. The answer has the record's fields.
    """
    return Call("next", locals(), lambda said: pairs(said) if said else None)


def beat(
    *,
    id: str,
    token: str,
    lease_ms: int,
    step: int,
    total_steps: int,
    left_ms: int | None = None,
    preview: str,
) -> Call[Standing]:
    """Extends the lease of a token that holds the request, and writes its progress.

    `step` is 0 while none is done; `left_ms` is the time from now until the picture is there (None: unknown),
    `preview` a JPEG of that step in base64 ("": none).
    """
    return Call("beat", locals())


def advance(*, id: str, token: str, stage: Stage, fields: Mapping[str, str]) -> Call[Advanced]:
    """Hands the request on to the next stage; `fields` keep what this one made."""
    return Call("advance", locals(), lambda said: Advanced(*said))


def close(*, id: str, token: str, state: State, fields: Mapping[str, str]) -> Call[Standing]:
    """Ends the request in a final state; `fields` say more (output or error)."""
    return Call("close", locals())


def release(*, id: str, token: str) -> Call[Standing]:
    """Gives the request back unfinished, through no fault of the request."""
    return Call("release", locals())


def cancel(*, id: str, force: bool) -> Call[Cancellation | None]:
    """Cancels what waits, and with `force` also what a GPU worker has begun; None: unknown id.

    A worker that holds the request is fenced at once and learns it at its next beat.
    """
    return Call("cancel", locals(), lambda said: Cancellation(*said) if said else None)


def delete(*, id: str) -> Call[Literal["deleted", "active", "unknown"]]:
    """Forgets a request in a final state; `active`: it is still waiting or running."""
    return Call("delete", locals())


def expired(*, retention_ms: int, limit: int) -> Call[list[str]]:
    """Ids that have been in a final state for longer than that, oldest first."""
    return Call("expired", locals())


def reap(*, lease_ms: int, max_attempts: int, turn_ms: int) -> Call[Reaped | None]:
    """Takes requests from workers that fell silent; None when another process has this turn."""
    return Call("reap", locals(), _read_reap)


def declare_dead(*, queue: Queue, id_prefix: str) -> Call[int]:
    """Reaps at the next turn what the worker holds whose id begins so; returns how many requests that are."""
    return Call("declare_dead", locals())


def turn(*, task: str, turn_ms: int) -> Call[bool]:
    """True for whoever asks first in a turn of that length."""
    return Call("turn", locals(), bool)


def register(*, queue: Queue, worker_id: str, info: str, hold_ms: int) -> Call[None]:
    """Keeps what a worker says of itself (JSON) for so long, and forgets who fell silent."""
    return Call("register", locals())


def wake(*, queue: Queue, worker_id: str, info: str, hold_ms: int) -> Call[bool]:
    """True when a sleeping worker is to load its model for a request; it then says `info` (JSON)."""
    return Call("wake", locals(), bool)


def workers() -> Call[list[str]]:
    """What each worker that is alive says of itself (JSON). Writes nothing: it works while Redis is full."""
    return Call("workers", locals())


def due(*, limit: int, lease_ms: int) -> Call[list[str]]:
    """Ids whose webhook is due; nobody else gets them until the lease is over."""
    return Call("due", locals())


def delivered(*, id: str, number: int, attempt: str, pause_ms: int | None) -> Call[None]:
    """Keeps what came of the attempt `number` (from 1) to send a webhook (JSON).

    The next is due in `pause_ms`, or never (None).
    """
    return Call("delivered", locals())


_ALL: tuple[Callable[..., Call[Any]], ...] = (
    submit, count_upload, next, beat, advance, close, release, cancel, delete, expired,
    reap, declare_dead, turn, register, wake, workers, due, delivered,
)  # fmt: skip
FUNCTIONS = {function.__name__: function for function in _ALL}


class Scripts:
    """Sends scripts by one client."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._registered: dict[str, Script] = {}

    def run(self, call: Call[T]) -> T:
        script = self._registered.get(call.script)
        if script is None:
            script = self._client.register_script(script_source(call.script))
            self._registered[call.script] = script
        return call.read(script(args=[call.sent]))


class AsyncScripts:
    """Sends scripts by one async client."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._registered: dict[str, AsyncScript] = {}

    async def run(self, call: Call[T]) -> T:
        script = self._registered.get(call.script)
        if script is None:
            script = self._client.register_script(script_source(call.script))
            self._registered[call.script] = script
        return call.read(await script(args=[call.sent]))


@cache
def script_source(name: str) -> str:
    """A script behind what stands in front of it: constants, what scripts share, its arguments as locals."""
    bells = ", ".join(f"{queue} = '{bell_list}'" for queue, bell_list in BELL_LISTS.items())
    header = lua_header() + f"local BELLS = {{{bells}}}\n"
    texts = [(_LUA / f"{part}.lua").read_text() for part in ("lib", name)]
    return header + texts[0] + _locals(FUNCTIONS[name]) + texts[1]


def _locals(function: Callable[..., Call[Any]]) -> str:
    """A local for each argument; nil for None."""
    names = inspect.signature(function).parameters
    return "local arguments = cjson.decode(ARGV[1])\n" + "".join(
        f"local {name} = arguments.{name}\n" for name in names
    )


def _read_submit(said: str) -> Queued | NotQueued:
    outcome, *more = said.split()
    if outcome in ("queued", "already"):
        request_id, ahead, bells_missing = more
        return Queued(request_id, int(ahead), int(bells_missing))
    return NotQueued(cast(Any, outcome), *map(int, more))


def _read_reap(said: list[int]) -> Reaped | None:
    if not said:
        return None
    handed_back, failed, io, gpu = said
    return Reaped(handed_back, failed, {"io": io, "gpu": gpu})
