"""OpenAI's own JavaScript client and the AI SDK, as they are on npm: only their base URL is another."""

import base64
from typing import Any

import httpx
import pytest

from app.config import Settings
from tests.clients.javascript import needs, run
from tests.clients.test_openai import TEXT_MODEL, newest
from tests.support.http_api import MODEL, PNG
from tests.support.processes import wait_for
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage

PICTURE = base64.b64encode(PNG).decode()


@pytest.fixture(autouse=True)
def _stored(settings: Settings) -> None:
    Storage(open_objects(settings)).put("0" * 32, "image.png", PNG)


def told(base: str, what: str, **env: str) -> dict[str, Any]:
    needs("openai")
    return run("openai_clients.mjs", base, what, **env)


@pytest.mark.usefixtures("work")
def test_picture_is_in_the_answer(base: str) -> None:
    assert told(base, "openai") == {"pictures": [PICTURE], "size": "512x512"}
    assert newest(base)["input"]["seed"] == 3


@pytest.mark.usefixtures("work")
def test_stream_ends_with_the_picture(base: str) -> None:
    assert told(base, "stream")["events"][-1] == ["image_generation.completed", PICTURE]


@pytest.mark.usefixtures("work")
def test_image_and_loras_of_a_form_are_taken(base: str) -> None:
    assert told(base, "edit", PICTURE=PICTURE) == {"pictures": [PICTURE]}
    made = newest(base)
    assert (made["model_id"], made["input"]["image_url"]) == (MODEL, f"data:image/png;base64,{PICTURE}")
    assert made["input"]["loras"] == [
        {"path": "owner/one", "scale": 0.5},
        {"path": "owner/two", "scale": 1.0},
    ]


def test_bad_input_is_the_clients_own_error(base: str) -> None:
    error = told(base, "refused")
    assert (error["name"], error["status"], error["param"]) == ("UnprocessableEntityError", 422, "n")
    assert "n: must be at most 4" in error["message"]


def test_models_are_listed_and_found(base: str) -> None:
    listed = told(base, "models")
    assert TEXT_MODEL in listed["ids"]
    assert listed["one"] == listed["ids"][0]


def test_caller_who_hangs_up_cancels(base: str) -> None:
    assert told(base, "hangUp") == {"name": "APIUserAbortError"}
    wait_for(lambda: newest(base)["status"] == "cancelled")


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("what", ["aiSdk", "aiSdkFal"])
def test_ai_sdk_gets_the_picture(base: str, what: str) -> None:
    needs("ai")
    assert told(base, what) == {"pictures": [PICTURE]}
    made = newest(base)
    assert (made["model_id"], made["input"]["image_size"]) == ("tongyi-mai/z-image/turbo", "512x512")
    assert httpx.get(f"{base}/v1/requests").json()["requests"][1:] == []
