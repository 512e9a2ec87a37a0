"""A server on three machines, of which one at a time is cut off and comes back; what became of every request.

    python -m benchmarks.machines --check

Machine a has the API, Redis (by TLS, with a password) and an S3 store; b and c an io and a gpu worker each,
and nothing in common with a but what goes over the network. Everything is real but the engine, which sleeps.
A run is one row of benchmarks/results/machines.jsonl; with `--check` the exit status is 1 when anything was
lost, done twice or wrong, or when nothing was finished while a machine was away.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx
import redis

from benchmarks.chaos.callers import Callers
from benchmarks.chaos.verdict import judge
from benchmarks.machines.network import Machine, Network, lan
from benchmarks.run import option_parser, write_row
from tests.support.certificate import make_certificate
from tests.support.s3_server import KEYS, S3Server
from worker.host import parent_death
from worker.host.embedded_redis import find_server
from worker.queue.record import FINAL_STATES
from worker.storage.s3 import S3Objects

PORT = 8000
REDIS_PORT = 6379
KEY = "caller-key"
PASSWORD = "redis-password"  # noqa: S105 - of a server that lives for a minute
START_SECONDS = 60.0
SETTLE_SECONDS = 120.0
WORKERS = 4


def main() -> int:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="zturbo-machines-"))
    with lan("zturbo-a", "zturbo-b", "zturbo-c") as network:
        figures, clean = _run(network, folder, options)
    write_row("machines.jsonl", figures, options)
    if options.check and not clean:
        print(f"FAILED; the logs are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = option_parser("machines", __doc__, check="unless all went well")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--cut", type=float, default=15.0, help="seconds that a machine is cut off")
    parser.add_argument("--lease", type=float, default=5.0, help="seconds; the product's default is 30")
    return parser.parse_args()


def _run(network: Network, folder: Path, options: argparse.Namespace) -> tuple[dict[str, object], bool]:
    a, b, c = network.machines
    certificate = make_certificate(folder, a.address)
    redis_url = f"rediss://:{PASSWORD}@{a.address}:{REDIS_PORT}/0?ssl_ca_certs={certificate}"
    store = S3Server(a.address)
    os.environ.update(store.environment)
    storage = store.make_bucket("pictures")
    server = {
        "ZTURBO_STORAGE": storage,
        "ZTURBO_REDIS_URL": redis_url,
        "ZTURBO_API_KEYS": f"caller:{KEY}",
        "ZTURBO_HOST": a.address,
        "ZTURBO_PORT": str(PORT),
    }
    # A worker is told of Redis, and has keys to the store; where that is it learns from Redis.
    worker = KEYS | {"ZTURBO_REDIS_URL": redis_url, "ZTURBO_LEASE_SECONDS": str(options.lease)}
    zturbo = (sys.executable, "-P", "-m", "app")
    with _running(folder) as start:
        try:
            start("redis", _redis(folder, a, certificate), {})
            start("api", (*zturbo, "api"), store.environment | server)
            for machine in (b, c):
                start(f"io-{machine.name}", machine.command(*zturbo, "worker", "io"), worker)
                engine = machine.command(sys.executable, "-P", "-m", "benchmarks.chaos.worker")
                start(f"gpu-{machine.name}", engine, worker)
            url = f"http://{a.address}:{PORT}"
            _until(lambda: _workers(url) == WORKERS, START_SECONDS)
            callers = Callers(url, KEY, options.seed)
            begun = time.monotonic()
            # Through both cuts and the time between and after them.
            submitting = threading.Thread(target=callers.submit_all, args=(options.requests, 3 * options.cut))
            submitting.start()
            cuts = [_cut(network, machine, url, callers, options.cut) for machine in (b, c)]
            submitting.join()
            _until(lambda: not _unfinished(callers), SETTLE_SECONDS)
            seconds = time.monotonic() - begun
            with redis.Redis.from_url(redis_url, decode_responses=True) as client:
                objects = S3Objects(storage, 0)
                verdict = judge(client, objects, callers.tickets, {})
                left = len(list(objects.list("work")))
        finally:
            store.stop()
    figures: dict[str, object] = {
        **asdict(verdict),
        "cuts": cuts,
        "left_in_work": left,
        "calls_repeated": callers.retries,
        "seconds": round(seconds, 1),
    }
    return figures, verdict.clean and all(cut["finished_meanwhile"] for cut in cuts)


def _cut(
    network: Network, machine: Machine, url: str, callers: Callers, seconds: float
) -> dict[str, float | str]:
    """Cuts a machine off, and waits until all its workers are back."""
    time.sleep(seconds / 4)
    before = len(callers.tickets) - len(_unfinished(callers))
    network.cut(machine)
    time.sleep(seconds)
    finished = len(callers.tickets) - len(_unfinished(callers)) - before
    network.mend(machine)
    mended = time.monotonic()
    _until(lambda: _workers(url) == WORKERS, START_SECONDS)
    back = round(time.monotonic() - mended, 1)
    return {"machine": machine.name, "finished_meanwhile": finished, "workers_back_in_s": back}


def _unfinished(callers: Callers) -> list[str]:
    found = []
    for ticket in list(callers.tickets):
        if callers.result(ticket.request_id)["status"] not in FINAL_STATES:
            found.append(ticket.request_id)
    return found


def _workers(url: str) -> int:
    """Workers that take requests."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False).json()
    except (httpx.TransportError, ValueError):
        return 0
    return sum(worker["state"] in ("ready", "busy") for worker in answer["workers"])


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not happen within {seconds:.0f} s")
        time.sleep(0.1)


Start = Callable[[str, Sequence[str], Mapping[str, str]], None]


@contextmanager
def _running(folder: Path) -> Iterator[Start]:
    """Starts programs with a data folder and a log each; all of them are gone in the end."""
    started: list[subprocess.Popen[bytes]] = []
    # What this program was told of the store must reach those alone that are told so.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ZTURBO_"))}

    def start(name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        data = folder / name
        data.mkdir()
        env = {**clean, **environment, "ZTURBO_DATA_DIR": str(data), "ZTURBO_MODEL": "demo"}
        with (folder / f"{name}.log").open("wb") as log:
            started.append(parent_death.spawn(command, env=env, stdout=log.fileno()))

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def _redis(folder: Path, machine: Machine, certificate: Path) -> tuple[str, ...]:
    return (
        *(str(find_server().path), "--bind", machine.address, "--port", "0", "--tls-port", str(REDIS_PORT)),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(certificate.with_suffix(".key"))),
        *("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", "--requirepass", PASSWORD),
        *("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
        *("--dir", str(folder / "redis")),
    )


if __name__ == "__main__":
    sys.exit(main())
