"""Every key and channel in Redis, and the rules of the queue that Python and the scripts share, each once.

`lua_header` is made from them and stands in front of every script. One that ends in a colon is a prefix.
"""

from typing import Literal

Queue = Literal["io", "gpu"]
QUEUES: tuple[Queue, ...] = ("io", "gpu")

Stage = Literal["prepare", "generate", "finish"]
QUEUE_OF: dict[Stage, Queue] = {"prepare": "io", "generate": "gpu", "finish": "io"}

REQUEST = "zturbo:req:"
"""Hash of one request."""
WAITING = "zturbo:waiting:"
"""Sorted set by queue (io, gpu): ids that a worker may take."""
LEASES = "zturbo:leases"
"""Sorted set: ids in a worker`s hands, by the end of the lease (ms)."""
LINE = "zturbo:line"
"""Sorted set: ids not yet taken by a GPU worker, by their place."""
QUEUED = "zturbo:queued"
"""Hash by owner: how many of their ids are in the line."""
ROUND = "zturbo:round"
"""String: the latest round of which GPU workers took a request."""
SPENT = "zturbo:spent:"
"""String by owner: until when their submits last at the permitted rate (ms)."""
ROUNDS = "zturbo:rounds"
"""Hash by owner: the latest round in which they have or had a request."""
SENT = "zturbo:sent:"
"""Hash by owner, by id: bytes of the picture that was sent in a request that is not over."""
UPLOADS = "zturbo:uploads:"
"""Sorted set by owner: `bytes file_id` of each upload, by when it expires (ms)."""
UPLOADED = "zturbo:uploaded:"
"""String by owner: bytes of their uploads together."""
DONE = "zturbo:done"
"""Sorted set: ids in a final state, by the time of it (ms)."""
OWNER = "zturbo:owner:"
"""Sorted set by owner: their ids, by submission."""
TOKEN = "zturbo:token:"  # noqa: S105
"""String: the id that a token was handed."""
WORKERS = "zturbo:workers:"
"""Sorted set by queue: worker ids, by the end of their registration (ms)."""
WORKER = "zturbo:worker:"
"""String: what one worker says of itself, JSON."""
SEQUENCE = "zturbo:sequence"
"""Counter of submissions."""
PACE = "zturbo:pace"
"""String: moving average of a generation (ms)."""
CLOCK = "zturbo:clock"
"""String: Redis`s time at the latest move, and `now` of then (ms)."""
TURN = "zturbo:turn"
"""String: until when one worker process has this tick`s reaping (ms)."""
BOOT = "zturbo:boot"
"""String: Redis`s run id at the latest reaping, and the date of that (ms)."""
OUTAGES = "zturbo:outages"
"""Sorted set: `from to` (ms) of each time that Redis ended, by its end."""
REAPED = "zturbo:reaped"
"""String: time of the last reaping (ms)."""
QUIET = "zturbo:quiet"
"""String: no lease is taken away before this time (ms)."""
CHANGED = "zturbo:changed"
"""Channel: id of a request whose state changed, and with it perhaps the line."""
STEPPED = "zturbo:stepped"
"""Channel: id of a request that did a step."""
ARRIVED = "zturbo:arrived"
"""Channel: id of a request that waits for a GPU worker from now on, for those that sleep."""
PREVIEW = "zturbo:preview:"
"""String by id: JPEG of the picture as it is now, base64."""
IDEMPOTENCY = "zturbo:idempotency:"
"""String by a digest of owner and key: an id, a digest of what it stands for."""
METRICS = "zturbo:metrics"
"""Hash: what was counted, `name|label|…`, and for a histogram `…|bound` and `…|sum` (ms)."""
WEBHOOKS = "zturbo:webhooks"
"""Sorted set: ids whose caller is to be told of the end, by when next (ms)."""
WATCHED = "zturbo:watched:"
"""String by id: there while somebody follows the request."""
STORAGE = "zturbo:storage"
"""String: where this server keeps what its processes share, JSON."""
UNPROVEN = "zturbo:unproven:"
"""Counter by GPU: workers on it that ended without a picture."""
PING = "zturbo:ping"
"""String: written to see whether Redis can write."""

PLACES = 65_536
"""Places in a round of the line: more than there are owners, and few enough to leave bits for the rounds."""
AHEAD_ROUNDS = 8
"""How far ahead of its turn a request may be taken by a worker that holds its weights."""
LOOKED_AT = 32
"""Waiting requests that such a worker chooses from."""
PASSED_OVER_SECONDS = 10.0
"""A request is passed over for others so long at most."""

BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds of the histograms' buckets, seconds; what took longer counts as +Inf."""


def lua_header() -> str:
    """The constants above as Lua's locals, times in ms."""
    keys = {
        name: value
        for name, value in globals().items()
        if isinstance(value, str) and value.startswith("zturbo:")
    }
    lines = [f"local {name} = '{value}'" for name, value in keys.items()]
    queues = ", ".join(f"{stage} = '{queue}'" for stage, queue in QUEUE_OF.items())
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    lines += [
        f"local QUEUE = {{{queues}}}",
        f"local BOUNDS = {{{bounds}}}",
        f"local PLACES = {PLACES}",
        f"local AHEAD = {AHEAD_ROUNDS * PLACES}",
        f"local LOOKED_AT = {LOOKED_AT}",
        f"local PASSED_OVER = {PASSED_OVER_SECONDS * 1000:.0f}",
    ]
    return "\n".join(lines) + "\n"
