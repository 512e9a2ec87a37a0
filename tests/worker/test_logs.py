"""One event a line, about which request; and at INFO no prompt, no URL and no key."""

import json
import subprocess
import sys
from typing import Any

import pytest

SAYS = """
import logging, sys, threading, warnings
from contextvars import copy_context
from worker.logs import about, start_logging
start_logging(sys.argv[1])
for name in ("httpx", "httpx2", "httpcore", "huggingface_hub"):
    logging.getLogger(name).info("HTTP Request: GET https://example.com/?signature=secret")
    logging.getLogger(name).warning("something is wrong")
log = logging.getLogger("worker.runtime.consumer")
with about("a"):
    log.info("stage ended", extra={"stage": "prepare", "seconds": 0.5})
    thread = threading.Thread(target=copy_context().run, args=(lambda: log.warning("no beat"),))
    thread.start()
    thread.join()
    try:
        raise ValueError("a reason\\nin two lines")
    except ValueError:
        log.exception("it broke")
log.info("about none", extra={"color_message": "about \033[1mnone"})
warnings.warn("old")
"""


def said(log_format: str) -> str:
    command = [sys.executable, "-c", SAYS, log_format]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in said("json").splitlines()]


def test_libraries_do_not_log_the_urls_they_fetch(lines: list[dict[str, Any]]) -> None:
    assert "secret" not in str(lines)
    assert [line["event"] for line in lines].count("something is wrong") == 4


def test_each_event_is_one_json_object(lines: list[dict[str, Any]]) -> None:
    *_, ended, no_beat, broke, about_none, warning = lines
    assert ended.pop("time").endswith("Z")
    assert ended == {
        "level": "INFO",
        "logger": "worker.runtime.consumer",
        "event": "stage ended",
        "request_id": "a",
        "stage": "prepare",
        "seconds": 0.5,
    }
    assert "color_message" not in about_none
    assert broke["exception"].endswith("ValueError: a reason\nin two lines")
    assert "old" in warning["event"]
    # What another thread says in a copy of the context is about the same request.
    assert (no_beat["event"], no_beat["request_id"], broke["request_id"]) == ("no beat", "a", "a")
    assert "request_id" not in about_none


def test_text_has_the_same_for_people() -> None:
    text = said("text")
    assert "INFO worker.runtime.consumer: stage ended request_id=a stage=prepare seconds=0.5\n" in text
    assert "WARNING worker.runtime.consumer: no beat request_id=a\n" in text
    assert "secret" not in text
