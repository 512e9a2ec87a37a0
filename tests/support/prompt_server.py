"""A server on the loopback that answers as OpenAI's chat completions do, for Magic Prompt."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def completion(content: str | None, finish_reason: str = "stop") -> dict:
    """An answer in OpenAI's form."""
    message = {"role": "assistant", "content": content}
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }


@dataclass
class PromptServer:
    url: str
    answer: object = None
    status: int = 200
    go: threading.Event = field(default_factory=threading.Event)
    """It answers once this is set."""
    asked: list[tuple[str, dict, dict]] = field(default_factory=list)
    """Path, headers and body of each request."""


@pytest.fixture
def prompt_server() -> Iterator[PromptServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, dict(self.headers), body))
            state.go.wait(10)
            data = state.answer if isinstance(state.answer, bytes) else json.dumps(state.answer).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state = PromptServer(f"http://127.0.0.1:{http.server_port}/v1")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.go.set()
        yield state
        state.go.set()
        http.shutdown()
        thread.join()
