"""What the server's processes log: their own lines, and of the libraries' only what is wrong.

One event a line, as text or as a JSON object; what is logged about a request, on whatever thread and by
whichever layer, names it. No line at INFO holds a prompt, a URL or a key.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

TALKATIVE = ("httpx", "httpx2", "httpcore", "huggingface_hub", "rq", "PIL")
"""Libraries whose INFO lines are dropped: the HTTP clients write each URL, with the signatures in it."""

COMPLAINING = ("python_multipart", "torch.utils._pytree", "diffusers.quantizers")
"""They warn of every byte of a caller's that is not as it should be, and of what is wrong in a library of
8-bit types that is not used here, but may be installed."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that this thread or task is about; a thread that is to know it runs in a copied context."""

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""What every log record has, and uvicorn's sentence in colours; the rest was given by `extra`."""


def start_logging(log_format: LogFormat) -> None:
    """Once in a process, before anything is logged."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    # Asked for at every line otherwise, and written in none.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in COMPLAINING:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def about(request: str) -> Iterator[None]:
    """What is logged within is about this request."""
    token = request_id.set(request)
    try:
        yield
    finally:
        request_id.reset(token)


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `event`; if any, `request_id`, the event's own fields and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = event(record.levelname, record.name, record.getMessage(), record.created) | _fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """The same for people: the fields as `name=value` behind the sentence."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + fields


def event(level: str, logger: str, sentence: str, at: float) -> dict[str, Any]:
    """What every line has; `at`: Unix seconds."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "level": level, "logger": logger, "event": sentence}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    own = {name: value for name, value in vars(record).items() if name not in _PLAIN}
    about_request = request_id.get()
    return ({"request_id": about_request} if about_request else {}) | own
