"""Magic Prompt by a server: a real exchange over the loopback in OpenAI's form, and all that goes wrong."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from models.config import ModelSettings
from models.expansion import messages
from models.prompt_server import SEED_RANGE, expand_by_server


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
def server() -> Iterator[PromptServer]:
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


@pytest.fixture
def settings(server: PromptServer) -> Callable[..., ModelSettings]:
    return lambda **more: ModelSettings(prompt_llm_url=server.url, _env_file=None, **more)


def test_rewritten_prompt_comes_back(server, settings):
    server.answer = completion("A red cube on a wooden table.")

    assert expand_by_server(settings(), "a red cube", seed=1) == ("A red cube on a wooden table.", None)


def test_server_is_asked_as_openai_is(server, settings):
    server.answer = completion("A red cube.")

    expand_by_server(
        settings(prompt_llm_model="llama", prompt_llm_key="s3cret"), "ein Würfel", SEED_RANGE + 5
    )

    [(path, headers, body)] = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer s3cret"
    assert body["model"] == "llama"
    assert body["messages"] == messages("ein Würfel")
    assert (body["seed"], body["max_tokens"]) == (5, 300)


def test_no_key_sends_no_authorization(server, settings):
    server.answer = completion("A red cube.")

    expand_by_server(settings(), "a red cube", seed=1)

    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (200, completion("A red cube on", finish_reason="length"), "cut off"),
        (200, completion(""), "empty"),
        (200, completion(None), "empty"),
        (500, {"error": "s3cret detail"}, "answered 500"),
        (401, {"error": "bad key"}, "answered 401"),
        (302, b"", "answered 302"),
        (200, b"<html>", "no answer that can be read"),
        (200, {"choices": []}, "no answer that can be read"),
        (200, [], "no answer that can be read"),
        (200, completion(["a", "list"]), "no answer that can be read"),
    ],
)
def test_useless_answer_becomes_a_warning(server, settings, status, answer, reason):
    server.status, server.answer = status, answer

    prompt, warning = expand_by_server(settings(), "a red cube", seed=1)

    assert prompt is None
    assert reason in warning
    assert "s3cret" not in warning


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://[broken", "not a url"])
def test_server_that_cannot_be_reached_becomes_a_warning(url):
    settings = ModelSettings(prompt_llm_url=url, _env_file=None)

    assert "cannot be reached" in expand_by_server(settings, "a red cube", seed=1).warning


def test_slow_server_becomes_a_warning(server, settings, monkeypatch):
    monkeypatch.setattr("models.prompt_server.TIMEOUT", 0.2)
    server.go.clear()

    assert "did not answer in time" in expand_by_server(settings(), "a red cube", seed=1).warning
