"""Ctrl-C in `zturbo submit`: what the server has taken is cancelled, and what cannot be known is told."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio.to_thread
import pytest

from app.cli.exits import Exit
from app.client import Client
from app.config import Settings
from app.main import create_app
from tests.support.http_api import WorkerHands, served
from tests.support.processes import wait_for
from worker.queue.requests import RequestStore


@pytest.fixture
def base_url(settings: Settings) -> Iterator[str]:
    with served(create_app(settings), settings) as url:
        yield url


def test_interrupt_asks_the_server_to_cancel(
    base_url: str, hands: WorkerHands, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "zturbo")
    with submitting(base_url) as process:
        wait_for(lambda: hands.client.zcard("zturbo:line"), seconds=30)
        [request_id] = hands.client.zrange("zturbo:line", 0, -1)
        with Client(base_url) as client:
            hands.generate(step=1)
            # Only from its first question on is it known to have heard the id.
            wait_for(lambda: any("/status" in str(vars(record).get("route")) for record in caplog.records))
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
            assert client.result(str(request_id))["status"] == "cancelled"
    assert process.returncode == Exit.INTERRUPTED
    assert "cancelled" in told


@pytest.mark.parametrize("times", [1, 2])
def test_interrupt_before_the_answer_waits_for_it_unless_it_comes_twice(
    times: int, base_url: str, hands: WorkerHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, answer = RequestStore.submit, threading.Event()

    async def submit_and_answer_late(*arguments: Any) -> Any:
        taken = await submit(*arguments)
        await anyio.to_thread.run_sync(answer.wait)
        return taken

    monkeypatch.setattr(RequestStore, "submit", submit_and_answer_late)
    with submitting(base_url) as process:
        assert process.stderr
        wait_for(lambda: hands.client.zcard("zturbo:line"), seconds=30)
        process.send_signal(signal.SIGINT)
        assert "Waiting for the server's answer" in process.stderr.readline()
        if times == 1:
            answer.set()
        else:
            process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        answer.set()
    assert process.returncode == Exit.INTERRUPTED
    assert ("cancelled" in told, "may make this picture" in told) == (times == 1, times == 2)
    assert hands.client.zcard("zturbo:line") == times - 1


def submitting(base_url: str) -> "subprocess.Popen[str]":
    """`zturbo submit` as a process that hears SIGINT."""
    # A test run in the background is started with SIGINT ignored, which children inherit.
    script = (
        "import signal, typer; from app.cli import requests; cli = typer.Typer(); requests.register(cli); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); cli()"
    )
    command = [sys.executable, "-c", script, "submit", "--prompt", "A lighthouse", "--base-url", base_url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
