"""A Redis of one's own by its URL: password, TLS, and the worker that is given nothing else."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from tests.support.certificate import make_certificate
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer, ServerEnded
from tests.worker.runtime.crew import Crew
from worker.config import WorkerSettings
from worker.errors import StoreUnavailable
from worker.host.embedded_redis import find_server
from worker.queue.requests import RequestStore

pytestmark = pytest.mark.anyio

HOST = "127.0.0.1"
PASSWORD = "a-pass/word"
# What a server that was built without TLS ends with: Redis and Valkey from 7 on, Redis before it.
WITHOUT_TLS = ("Failed finding TLS support", "Bad directive or wrong number of arguments")


class Guarded(NamedTuple):
    url: str
    certificate: Path


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """A Redis that listens on a TLS port alone and asks for a password."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    certificate = make_certificate(tmp_path, HOST)
    port = free_port()
    options = [
        *("--bind", HOST, "--tls-port", str(port), "--requirepass", PASSWORD, "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(certificate.with_suffix(".key"))),
        *("--tls-ca-cert-file", str(certificate)),
    ]
    try:
        server = RedisServer(*options, password=PASSWORD)
    except ServerEnded as ended:
        if any(words in str(ended) for words in WITHOUT_TLS):
            pytest.skip(f"{find_server()} was built without TLS: apt install redis-server")
        raise
    yield Guarded(f"rediss://:a-pass%2Fword@{HOST}:{port}/0", certificate)
    server.remove()


@pytest.fixture
async def crew(guarded: Guarded, tmp_path: Path) -> AsyncIterator[Crew]:
    crew = Crew(f"{guarded.url}?ssl_ca_certs={guarded.certificate}", tmp_path / "data")
    yield crew
    await crew.close()


async def test_request_is_worked_off_through_tls_and_a_password(crew: Crew) -> None:
    crew.start("io")
    crew.start("gpu")
    await crew.submit("a")
    assert (await crew.until("a")).state == "succeeded"


@pytest.mark.parametrize("fault", ["no password", "another certificate", "no TLS"])
async def test_stranger_is_not_let_in(guarded: Guarded, tmp_path: Path, fault: str) -> None:
    url = f"{guarded.url}?ssl_ca_certs={guarded.certificate}"
    if fault == "no password":
        url = url.replace(":a-pass%2Fword@", "")
    elif fault == "another certificate":
        url = guarded.url
    else:
        url = guarded.url.replace("rediss://", "redis://")
    requests = RequestStore.connect(WorkerSettings(_env_file=None, data_dir=tmp_path, redis_url=url))
    with pytest.raises((StoreUnavailable, redis.RedisError)):
        await requests.ping()
    await requests.close()
