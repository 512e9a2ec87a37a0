"""What became of every request, read from Redis, the store of pictures and the callers' own memory."""

import io
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
import redis
from PIL import Image

from benchmarks.chaos.callers import Ticket
from worker.queue import keys
from worker.queue.record import FINAL_STATES, Record, parse
from worker.storage.objects import Objects
from worker.storage.pictures import FOLDER, file_key

FAULTS = (
    "lost",
    "finished_twice",
    "wrong_state",
    "wrong_picture",
    "files_without_record",
    "records_without_file",
)


@dataclass
class Verdict:
    """Counts; those of FAULTS should be 0."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    unanswered_submits: int = 0
    """Requests that nobody has an id of: their submit was done, but its answer was lost with a process."""
    lost: int = 0
    """Submits that were answered and are in no final state now."""
    finished_twice: int = 0
    """Requests whose result was seen to change after it was final, or that left more than one picture."""
    wrong_state: int = 0
    """A final state that the request's story does not explain."""
    wrong_picture: int = 0
    files_without_record: int = 0
    records_without_file: int = 0
    unfinished_files: int = 0
    """Left by a worker that was killed while it wrote; nobody can fetch them, and they are swept."""

    @property
    def clean(self) -> bool:
        counts = asdict(self)
        return not any(counts[fault] for fault in FAULTS)


def judge(client: redis.Redis, objects: Objects, tickets: list[Ticket], seen: dict[str, set[str]]) -> Verdict:
    """`seen`: the final results that a watcher read of each request while the run went on."""
    records = {record.id: record for record in _records(client)}
    told = {ticket.request_id: ticket for ticket in tickets}
    verdict = Verdict(unanswered_submits=len(records.keys() - told.keys()))
    states = Counter(record.state for record in records.values())
    verdict.succeeded, verdict.failed = states["succeeded"], states["failed"]
    verdict.cancelled = states["cancelled"]
    for ticket in tickets:
        record = records.get(ticket.request_id)
        if record is None or record.state not in FINAL_STATES:
            verdict.lost += 1
        elif not _explained(record, ticket):
            verdict.wrong_state += 1
            print(f"wrong state: {ticket} ended as {record.state}: {record.error}")
    verdict.finished_twice = sum(len(results) > 1 for results in seen.values())
    _judge_files(verdict, records, told, objects)
    return verdict


def _records(client: redis.Redis) -> list[Record]:
    found = list(client.scan_iter(f"{keys.REQUEST}*", count=1000))
    return [parse(client.hgetall(key), retention_days=7) for key in found]  # type: ignore[arg-type]


def _explained(record: Record, ticket: Ticket) -> bool:
    if ticket.cancelled or record.state == "cancelled":
        return bool(ticket.cancelled) and record.state == "cancelled" and record.output is None
    if ticket.expected == "failed":
        return record.state == "failed" and record.error is not None and record.error["type"] == "bad_output"
    return record.state == "succeeded"


def _judge_files(
    verdict: Verdict, records: dict[str, Record], told: dict[str, Ticket], objects: Objects
) -> None:
    expected = set()
    for record in records.values():
        if record.state != "succeeded" or record.output is None:
            continue
        facts = record.output["image"]
        key = file_key(facts["file_id"], facts["name"])
        expected.add(key)
        data = objects.get(key)
        if data is None or len(data) != facts["size"]:
            verdict.records_without_file += 1
        elif record.id in told and not _shows(data, told[record.id].seed):
            verdict.wrong_picture += 1
    found = {entry.key for entry in objects.list(FOLDER)}
    unfinished = {key for key in found if key.endswith(".part")}
    verdict.unfinished_files = len(unfinished)
    verdict.files_without_record = len(found - unfinished - expected)


def _shows(data: bytes, seed: int) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return bool((np.asarray(image) == seed % 256).all())
