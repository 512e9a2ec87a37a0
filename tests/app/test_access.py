"""The access log: one line a call, with nothing in it that opens, shows or repeats anything."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, in_process
from worker.logs import JsonLines

pytestmark = pytest.mark.anyio


class Written(logging.Handler):
    """The lines of the access log as they are written, read back."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(JsonLines())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    caplog.set_level(logging.INFO, "zturbo.access")
    written, log = Written(), logging.getLogger("zturbo.access")
    log.addHandler(written)
    yield lambda: [line for line in written.lines if line["level"] == "INFO"]
    log.removeHandler(written)


async def test_line_tells_route_status_time_key_and_request(http: httpx.AsyncClient, lines: Any) -> None:
    request_id = (await http.post(SUBMIT, json=DOCUMENTED_INPUT)).json()["request_id"]
    await http.get(f"/v1/requests/{request_id}/status")

    submit, status = lines()
    assert submit.pop("ms") > 0
    assert submit.pop("time")
    assert submit == {
        "level": "INFO",
        "logger": "zturbo.access",
        "event": "call",
        "method": "POST",
        "route": "/v1/models/{model_id:path}",
        "status": 200,
        "key": "local",
        "request_id": request_id,
    }
    assert (status["route"], status["request_id"]) == ("/v1/requests/{request_id}/status", request_id)


async def test_line_holds_no_prompt_no_url_and_no_key(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, lines: Any
) -> None:
    body = DOCUMENTED_INPUT | {"prompt": "a-secret-prompt", "image_url": "https://secret.example.com/a.png"}
    await http.post(SUBMIT, json=body, headers={"Authorization": "Bearer secret-key"})
    await http.post(SUBMIT, json=body | {"seed": "secret"})
    await http.get(f"/v1/files/{'5ec2e7' * 5}00/image.png?secret=1")
    await http.get("/nothing/secret")

    assert [line["status"] for line in lines()] == [200, 422, 404, 404]
    for secret in ("secret", "5ec2e7"):
        assert secret not in caplog.text
        assert secret not in str(lines())


async def test_caller_who_hangs_up_is_no_error(
    app: FastAPI, caplog: pytest.LogCaptureFixture, lines: Any
) -> None:
    async def gone(*_: object) -> None:
        raise ClientDisconnect

    app.state.requests.get = gone
    async with in_process(app) as http:
        with pytest.raises(AssertionError):
            # httpx waits for an answer that nobody is there to read.
            await http.get("/v1/requests/x/status")
    assert lines()[-1]["status"] == 499
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
