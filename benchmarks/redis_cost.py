"""What each move on a request costs Redis: microseconds of its one thread that runs commands, and memory.

    python -m benchmarks.redis_cost

The real scripts by the real clients, one call after the other, with lines of several lengths standing in the
queue meanwhile. Redis runs commands on one core, so the sum of what a picture needs is how many pictures a
second one Redis holds (docs/scale.md). A run is one row of benchmarks/results/redis.jsonl.
"""

import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args

import redis
from rq import Queue as BellQueue
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from benchmarks.run import option_parser, write_row
from benchmarks.store import running_store
from models.job import Job
from models.schema.inputs import ControlNetLoraInput
from models.schema.model_ids import CONTROLNET_LORA
from worker.config import WorkerSettings
from worker.host.embedded_redis import Fsync
from worker.queue import scripts
from worker.queue.affinity import NO_WEIGHTS
from worker.queue.connection import connect
from worker.queue.keys import Queue
from worker.queue.record import RECORD_VERSION, Record
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.requests import RequestStore
from worker.queue.scripts import Call
from worker.queue.work_queue import WorkQueue

T = TypeVar("T")

STEPS = 8
LIFE = {
    "submit": 1,
    "status": 3,
    "next_io": 2,
    "advance": 2,
    "next_gpu": 1,
    "beat": STEPS,
    "watched": STEPS + 3,
    "close": 1,
}
"""How often one picture makes each move; a caller asks three times."""
CALLERS = 50
BATCH = 1000
ROUNDS = 5
ASKED = {
    "prompt": "A lighthouse on a cliff at dusk",
    "image_url": "https://example.com/photo.jpg",
    "loras": [],
}
BODY = ControlNetLoraInput.model_validate(ASKED).model_dump(mode="json")
JOB = Job(prompt=BODY["prompt"], width=1024, height=1024)
PREPARED = {"job": JOB.model_dump(mode="json"), "control": f"{'0' * 32}.image.npy", "seconds": 0.1}
GENERATED = {
    "model": "Tongyi-MAI/Z-Image-Turbo", "seed": 0, "prompt": BODY["prompt"], "expanded_prompt": None,
    "controlnet": None, "loras": [], "timings": {"encode": 0.01, "denoise": 0.8, "decode": 0.05},
    "warnings": [], "file_ids": {"image": "0" * 32}, "image": f"{'0' * 32}.image.npy",
}  # fmt: skip
OUTPUT = GENERATED | {"image": {"file_id": "0" * 32, "name": "image.png", "width": 1024, "height": 1024}}


def main() -> None:
    parser = option_parser("redis_cost", __doc__)
    parser.add_argument(
        "--depths", type=int, nargs="+", default=[0, 1000, 100_000], help="requests that wait"
    )
    parser.add_argument("--requests", type=int, default=200, help="seen through in each round")
    parser.add_argument(
        "--appendfsync",
        choices=get_args(Fsync),
        default="everysec",
        help="with `always` each move here, which comes alone, pays for a flush that a busy Redis shares",
    )
    options = parser.parse_args()
    logging.disable()
    figures: dict[str, Any] = {}
    for depth in options.depths:
        with (
            tempfile.TemporaryDirectory(prefix="zturbo-cost-") as name,
            running_store(Path(name), options.appendfsync) as store,
        ):
            figures["redis"] = f"{store.binary.name} {store.binary.version}"
            figures[f"waiting_{depth}"] = Bench(Path(name), store.url).run(depth, options.requests)
    write_row("redis.jsonl", figures, options)


class Bench:
    """One Redis with `depth` requests in line, half of them prepared."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._settings = WorkerSettings(_env_file=None, data_dir=folder, redis_url=redis_url, max_queue=10**9)
        self._client = connect(redis_url)
        self._work_queue = WorkQueue(self._client, self._settings)
        self._costs: dict[str, float] = {}

    def run(self, depth: int, requests: int) -> dict[str, Any]:
        empty = self._memory()
        self._fill(depth)
        self._let_rewrite_end()
        queued = (self._memory() - empty) / depth if depth else 0
        before = self._memory()
        for number in range(ROUNDS):
            asyncio.run(self._submit_and_ask(f"round-{number}", requests))
            self._work(f"round-{number}", requests)
        finished = (self._memory() - before) / requests / ROUNDS
        for _ in range(ROUNDS):
            self._stand_idle(requests)
            self._ring(requests)
        picture = sum(times * self._costs[move] for move, times in LIFE.items())
        return {
            "microseconds": {move: round(cost, 1) for move, cost in self._costs.items()},
            "microseconds_a_picture": round(picture),
            "bytes_a_queued_request": round(queued),
            "bytes_a_finished_request": round(finished),
        }

    def _fill(self, depth: int) -> None:
        fields = {
            "version": str(RECORD_VERSION),
            "model_id": CONTROLNET_LORA,
            "input": json.dumps(BODY),
            "warnings": "[]",
        }
        self._many(
            scripts.submit(id=f"r{n}", owner=f"caller-{n % CALLERS}", most=10**9, fields=fields)
            for n in range(depth)
        )
        taken = self._many(
            scripts.next(
                queue="io", token=f"t{n}", worker_id="w", lease_ms=10**6, known_version=RECORD_VERSION
            )
            for n in range(depth // 2)
        )
        made = {"prepared": json.dumps(PREPARED)}
        self._many(
            scripts.advance(id=record["id"], token=f"t{n}", stage="generate", fields=made)
            for n, record in enumerate(taken)
            if record
        )

    def _let_rewrite_end(self) -> None:
        """While Redis rewrites its append-only file, every page that it writes to is copied first."""
        while self._client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.1)

    def _many(self, calls: Iterable[Call[T]]) -> list[T]:
        """The same script over and over, a batch at a time; not what is measured."""
        answers: list[T] = []
        waiting = iter(calls)
        while batch := list(islice(waiting, BATCH)):
            sha = self._client.script_load(scripts.script_source(batch[0].script))
            with self._client.pipeline(transaction=False) as pipe:
                for call in batch:
                    pipe.evalsha(sha, 0, call.sent)
                answers += [call.read(said) for call, said in zip(batch, pipe.execute(), strict=True)]
        return answers

    async def _submit_and_ask(self, name: str, requests: int) -> None:
        api = RequestStore.connect(self._settings)
        ids = [f"{name}-{number}" for number in range(requests)]
        with self._measured("submit", requests):
            for request_id in ids:
                await api.submit(request_id, CONTROLNET_LORA, BODY, "caller", [])
        with self._measured("status", requests):
            for request_id in ids:
                await api.get(request_id)
        await api.close()

    def _work(self, name: str, requests: int) -> None:
        """Each move for as many requests as there are to see through, whichever come first."""
        hands = [f"io-{name}-{number}" for number in range(requests)]
        with self._measured("next_io", requests):
            prepared = [self._next("io", token) for token in hands]
        with self._measured("advance", requests):
            for record, token in zip(prepared, hands, strict=True):
                self._work_queue.advance(record.id, token, "generate", PREPARED, NO_WEIGHTS)
        hands = [f"gpu-{name}-{number}" for number in range(requests)]
        with self._measured("next_gpu", requests):
            running = [self._next("gpu", token) for token in hands]
        with self._measured("beat", requests):
            for record, token in zip(running, hands, strict=True):
                self._work_queue.beat(record.id, token, 1, STEPS)
        with self._measured("watched", requests):
            for record in running:
                self._work_queue.is_watched(record.id)
        for record, token in zip(running, hands, strict=True):
            self._work_queue.advance(record.id, token, "finish", GENERATED)
        hands = [f"finish-{name}-{number}" for number in range(requests)]
        finishing = [self._next("io", token) for token in hands]
        with self._measured("close", requests):
            for record, token in zip(finishing, hands, strict=True):
                self._work_queue.finish(record.id, token, OUTPUT)

    def _next(self, queue: Queue, token: str) -> Record:
        record = self._work_queue.next(queue, token, "worker")
        assert record is not None
        return record

    def _stand_idle(self, times: int) -> None:
        """What every worker process does once a second, with as many others registered."""
        registry = Registry(self._client, 60)
        workers = [
            WorkerInfo(f"gpu-{number}", "gpu", "ready", CONTROLNET_LORA, "cuda") for number in range(times)
        ]
        with self._measured("worker_second", times):
            for info in workers:
                registry.say(info)
                self._work_queue.reap(1.0)

    def _ring(self, times: int) -> None:
        """A bell that is rung, heard by RQ and answered, with nothing to do."""
        with redis.Redis.from_url(self._settings.redis_url or "") as client:
            bells = BellQueue("measured", connection=client, serializer=JSONSerializer)
            with self._measured("bell", times):
                for _ in range(times):
                    bells.enqueue("time.time", result_ttl=0)
                SimpleWorker([bells], connection=client, serializer=JSONSerializer).work(burst=True)

    @contextmanager
    def _measured(self, move: str, times: int) -> Iterator[None]:
        begun = self._busy()
        yield
        # The least of all rounds: what else runs on the machine only adds.
        cost = (self._busy() - begun) / times
        self._costs[move] = min(cost, self._costs.get(move, cost))

    def _busy(self) -> float:
        """Microseconds of a core that the thread which runs commands has used."""
        info: dict[str, float] = self._client.info("cpu")
        return 1e6 * (info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])

    def _memory(self) -> int:
        info: dict[str, int] = self._client.info("memory")
        return info["used_memory"]


if __name__ == "__main__":
    main()
