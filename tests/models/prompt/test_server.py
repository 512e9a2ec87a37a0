"""Magic Prompt by a server: a real exchange over the loopback in OpenAI's form, and all that goes wrong."""

from collections.abc import Callable

import pytest

from models.config import ModelSettings
from models.prompt.expansion import messages
from models.prompt.server import SEED_RANGE, expand_by_server
from tests.support.prompt_server import PromptServer, completion


@pytest.fixture
def settings(prompt_server: PromptServer) -> Callable[..., ModelSettings]:
    return lambda **more: ModelSettings(prompt_llm_url=prompt_server.url, _env_file=None, **more)


def test_rewritten_prompt_comes_back(prompt_server, settings):
    prompt_server.answer = completion("A red cube on a wooden table.")

    assert expand_by_server(settings(), "a red cube", seed=1) == ("A red cube on a wooden table.", None)


def test_server_is_asked_as_openai_is(prompt_server, settings):
    prompt_server.answer = completion("A red cube.")

    expand_by_server(
        settings(prompt_llm_model="llama", prompt_llm_key="s3cret"), "ein Würfel", SEED_RANGE + 5
    )

    [(path, headers, body)] = prompt_server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer s3cret"
    assert body["model"] == "llama"
    assert body["messages"] == messages("ein Würfel")
    assert (body["seed"], body["max_tokens"]) == (5, 300)


def test_no_key_sends_no_authorization(prompt_server, settings):
    prompt_server.answer = completion("A red cube.")

    expand_by_server(settings(), "a red cube", seed=1)

    assert "Authorization" not in prompt_server.asked[0][1]


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
def test_useless_answer_becomes_a_warning(prompt_server, settings, status, answer, reason):
    prompt_server.status, prompt_server.answer = status, answer

    prompt, warning = expand_by_server(settings(), "a red cube", seed=1)

    assert prompt is None
    assert reason in warning
    assert "s3cret" not in warning


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://[broken", "not a url"])
def test_server_that_cannot_be_reached_becomes_a_warning(url):
    settings = ModelSettings(prompt_llm_url=url, _env_file=None)

    assert "cannot be reached" in expand_by_server(settings, "a red cube", seed=1).warning


def test_slow_server_becomes_a_warning(prompt_server, settings, monkeypatch):
    monkeypatch.setattr("models.prompt.server.TIMEOUT", 0.2)
    prompt_server.go.clear()

    assert "did not answer in time" in expand_by_server(settings(), "a red cube", seed=1).warning
