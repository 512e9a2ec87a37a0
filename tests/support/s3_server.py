"""A real S3 server for tests: moto's, in a process of its own, which can be made slow, broken or absent.

`python -m tests.support.s3_server` is that process: moto behind a door that takes orders under /faults.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import httpx

from tests.support.processes import free_port, wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


START_SECONDS = 60.0


class S3Server:
    """Started at once; `environment` is what a program needs to find it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        port = free_port(host)
        self.url = f"http://{host}:{port}"
        self.environment = KEYS | {"AWS_ENDPOINT_URL": self.url}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.s3_server", host, str(port)], stderr=subprocess.DEVNULL
        )
        wait_for(self._answers, START_SECONDS)

    def _answers(self) -> bool:
        try:
            return self.faults().is_success
        except httpx.TransportError:
            return False

    def make_bucket(self, name: str) -> str:
        """Its URL, for ZTURBO_STORAGE."""
        httpx.put(f"{self.url}/{name}").raise_for_status()
        return f"s3://{name}/pictures"

    def faults(self, status: int = 0, delay: float = 0, only: str = "") -> httpx.Response:
        """How calls (of the method `only`) are answered from now on, and how much later; else rightly."""
        return httpx.post(f"{self.url}/faults", json={"status": status, "delay": delay, "only": only})

    def calls(self) -> int:
        """How many there were so far."""
        return int(self.faults().json()["calls"])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(host: str, port: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    moto = DomainDispatcherApplication(create_backend_app)
    faults: dict[str, Any] = {"status": 0, "delay": 0, "only": "", "calls": 0}

    def door(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/faults":
            faults.update(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(faults).encode()]
        faults["calls"] += 1
        if faults["only"] in ("", environ["REQUEST_METHOD"]):
            time.sleep(faults["delay"])
            if faults["status"]:
                start_response(f"{faults['status']} Fault", [("Content-Length", "0")])
                return [b""]
        return moto(environ, start_response)  # type: ignore[no-any-return]

    run_simple(host, port, door, threaded=True)


if __name__ == "__main__":
    # Nothing of the machine's own account may be used.
    os.environ.update(KEYS)
    serve(sys.argv[1], int(sys.argv[2]))
